//! Aliases: other names and other join keys for views.

use std::collections::{BTreeMap, BTreeSet};

use super::{Resolver, about};
use crate::definitions::shape::FeatureViewShape;
use crate::definitions::{Located, Place};
use crate::project::{Alias, Defined};
use crate::text;
use crate::view::View;

impl Resolver<'_> {
    pub(super) fn aliases(&mut self) {
        for Located {
            value: shape,
            place,
        } in &self.definitions.feature_views
        {
            let Some(target) = &shape.alias_of else {
                continue;
            };
            self.only_of_aliases(shape, target, place);
            if !self.is_view(target, place) {
                continue;
            }
            // A view that could not be resolved has its own problem.
            let Some(view) = self.project.views.get(target) else {
                continue;
            };
            let view = std::sync::Arc::clone(&view.value.view);
            let join_keys = shape.join_keys.clone().unwrap_or_default();
            self.alias_keys(&join_keys, &view, place);
            let alias = Alias {
                name: shape.name.clone(),
                alias_of: target.clone(),
                join_keys,
            };
            let defined = Defined {
                value: alias,
                about: about!(shape),
            };
            self.project.aliases.insert(shape.name.clone(), defined);
        }
    }

    fn only_of_aliases(&mut self, shape: &FeatureViewShape, target: &str, place: &Place) {
        let of_views = [
            ("entities", shape.entities.is_some()),
            ("source", shape.source.is_some()),
            ("transformation", shape.transformation.is_some()),
            ("ttl", shape.ttl.is_some()),
            ("online", shape.online.is_some()),
            ("features", shape.features.is_some()),
        ];
        for (key, _) in of_views.iter().filter(|(_, given)| *given) {
            let message = format!(
                "an alias has `join_keys` and no `{key}`: its `{key}` is that of view `{target}`"
            );
            self.problems.at(&place.at(key), message);
        }
    }

    /// Whether a feature view is called `target`, and one only; a problem if none is.
    fn is_view(&mut self, target: &str, place: &Place) -> bool {
        let shapes = || self.definitions.feature_views.iter().map(|d| &d.value);
        let views = || shapes().filter(|shape| shape.alias_of.is_none());
        let omitted = &self.definitions.omitted.views;
        // What was left out has its own problem.
        if omitted.contains(target) {
            return false;
        }
        if views().any(|shape| shape.name == target) {
            return true;
        }
        let valid = text::list(views().map(|shape| &shape.name));
        let alias = shapes().find(|shape| shape.name == target);
        let message = match alias.and_then(|alias| alias.alias_of.as_ref()) {
            Some(view) => {
                format!("`{target}` is itself an alias, of `{view}`; name a feature view: {valid}")
            }
            None if omitted.is_nameless => return false,
            None => format!("no feature view `{target}`; there are: {valid}"),
        };
        self.problems.at(&place.at("alias_of"), message);
        false
    }

    fn alias_keys(&mut self, join_keys: &BTreeMap<String, String>, view: &View, place: &Place) {
        let list = place.at("join_keys");
        for (key, name) in join_keys {
            let at = list.at(key);
            if !view.keys.iter().any(|k| k.name == *key) {
                let valid = text::list(view.keys.iter().map(|k| &k.name));
                let message = format!(
                    "view `{}` has no join key `{key}`; it has: {valid}",
                    view.name
                );
                self.problems.at(&at, message);
            }
            self.column_name(name, "join key", &at);
        }
        let mut names = BTreeSet::new();
        for key in &view.keys {
            let name = join_keys.get(&key.name).unwrap_or(&key.name);
            if !names.insert(name) {
                let message = format!(
                    "two join keys of view `{}` are called `{name}` here; each needs its own name",
                    view.name
                );
                self.problems.at(&list, message);
            }
        }
    }
}

//! Features that are asked for by name, planned once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use unskew_store::Features;

use super::Answers;

/// How many lists are kept planned. A client asks for the same few again and again; one that asks
/// for others each time pays for planning, and memory stays bounded.
const KEPT: usize = 1_000;

/// Features that are asked for one by one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FeatureList {
    /// Their names, `VIEW:FEATURE`.
    pub(crate) features: Vec<String>,
    /// Whether outputs are called `view__feature`.
    pub(crate) full_feature_names: bool,
}

impl FeatureList {
    pub(super) fn features(&self) -> Features {
        Features::Named {
            features: self.features.clone(),
            full_feature_names: self.full_feature_names,
        }
    }
}

/// What answers for a list, and the views for which its newest plan waits.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) answers: Arc<dyn Answers>,
    pub(super) waiting: Vec<String>,
}

/// The lists that were asked for. Requests read without a lock: a list that is new is put into a
/// copy, which takes the place of the whole.
#[derive(Default)]
pub(super) struct Lists {
    planned: ArcSwap<HashMap<Arc<FeatureList>, Planned>>,
}

impl Lists {
    /// These, planned already.
    pub(super) fn of(planned: HashMap<Arc<FeatureList>, Planned>) -> Self {
        Self {
            planned: ArcSwap::from_pointee(planned),
        }
    }

    /// What answers for a list, if it was asked for before.
    pub(super) fn get(&self, list: &FeatureList) -> Option<Arc<dyn Answers>> {
        let planned = self.planned.load();
        Some(Arc::clone(&planned.get(list)?.answers))
    }

    /// Keeps what answers for a list.
    pub(super) fn keep(&self, list: &FeatureList, planned: &Planned) {
        let list = Arc::new(list.clone());
        self.planned.rcu(|lists| {
            let mut lists = HashMap::clone(lists);
            if lists.len() >= KEPT {
                lists.clear();
            }
            lists.insert(Arc::clone(&list), planned.clone());
            lists
        });
    }

    /// The lists that were asked for.
    pub(super) fn asked(&self) -> Vec<Arc<FeatureList>> {
        self.planned.load().keys().map(Arc::clone).collect()
    }

    /// The lists that are answered by a former plan, and the views for which their newest waits.
    pub(super) fn waiting(&self) -> BTreeMap<String, Vec<String>> {
        let planned = self.planned.load();
        let waiting = planned.iter().filter(|(_, p)| !p.waiting.is_empty());
        waiting
            .map(|(list, planned)| (list.features.join(","), planned.waiting.clone()))
            .collect()
    }
}

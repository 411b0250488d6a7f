//! Feature services: what they name exists, and can be had together.

use super::{Resolver, about};
use crate::definitions::Located;
use crate::planner::{PlanError, service_problems};
use crate::project::{Defined, FeatureService};

impl Resolver<'_> {
    pub(super) fn services(&mut self) {
        let broken = self.broken();
        for Located {
            value: shape,
            place,
        } in &self.definitions.feature_services
        {
            let list = place.at("features");
            let mut whole = true;
            for (index, reference) in shape.features.iter().enumerate() {
                let (owner, member) = reference.split_once(':').unzip();
                let owner = owner.unwrap_or(reference);
                // A reference to what could not be resolved is no problem of its own.
                if broken.contains(owner) {
                    whole = false;
                } else if let Err(message) = self.member(owner, member) {
                    whole = false;
                    self.problems.at(&list.at(index), message);
                }
            }
            let service = FeatureService {
                name: shape.name.clone(),
                full_feature_names: shape.full_feature_names,
                features: shape.features.clone(),
            };
            if whole {
                for problem in service_problems(&self.project, &service) {
                    match problem {
                        // Where these lie, they were reported.
                        PlanError::Cycle(_) => {}
                        PlanError::UnknownView { name, .. } if broken.contains(&name) => {}
                        // A join key that may be one of what is broken.
                        PlanError::UnknownFeature { view, .. } if view == "key" => {}
                        other => self.problems.at(&list, other),
                    }
                }
            }
            let defined = Defined {
                value: service,
                about: about!(shape),
            };
            self.project.services.insert(shape.name.clone(), defined);
        }
    }
}

//! Features that are asked for by name, planned once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use unskew_online::OnlineStore;
use unskew_store::{Applied, Features};

use super::load::choose;
use super::{Answers, Service};
use crate::error::Problem;

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

#[derive(Clone)]
struct Planned {
    answers: Arc<dyn Answers>,
    waiting: Vec<String>,
}

/// The lists that were asked for. Requests read without a lock: a list that is new is put into a
/// copy, which takes the place of the whole.
#[derive(Default)]
pub(super) struct Lists {
    planned: ArcSwap<HashMap<FeatureList, Planned>>,
}

impl Lists {
    /// The features of a list, by the newest of `states` whose views are materialized.
    ///
    /// # Errors
    /// They cannot be had together, or cannot be served.
    pub(super) async fn get(
        &self,
        list: &FeatureList,
        states: &[Arc<Applied>],
        online: &Arc<dyn OnlineStore>,
    ) -> Result<Arc<dyn Answers>, Problem> {
        if let Some(planned) = self.planned.load().get(list) {
            return Ok(Arc::clone(&planned.answers));
        }
        let features = Features::Named {
            features: list.features.clone(),
            full_feature_names: list.full_feature_names,
        };
        let chosen = choose(&features, states, online).await?;
        let answers = match chosen.service {
            Service::Ready(answers) => answers,
            Service::NotOnline { view } => return Err(Problem::FeaturesNotOnline { view }),
        };
        let planned = Planned {
            answers: Arc::clone(&answers),
            waiting: chosen.waiting,
        };
        self.planned.rcu(|lists| {
            let mut lists = HashMap::clone(lists);
            if lists.len() >= KEPT {
                lists.clear();
            }
            lists.insert(list.clone(), planned.clone());
            lists
        });
        Ok(answers)
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

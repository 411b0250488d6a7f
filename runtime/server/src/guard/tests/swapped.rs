use std::collections::BTreeMap;

use super::*;
use crate::served::{Served, Service};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_ends_by_the_plan_with_which_it_began() {
    let store = Store::new();
    let former = testing::plan(Vec::new());
    store.fill(&former, &nothing()).await;
    let online = Arc::clone(&store.online);
    let mut newer = former.clone();
    newer.outputs.truncate(1);
    assert_ne!(former.digest(), newer.digest());
    let names = |plan: &FeaturePlan| -> Vec<String> {
        let outputs = plan.outputs.iter();
        outputs.map(|output| output.name.clone()).collect()
    };
    let assert_by = |answer: &str, plan: &FeaturePlan| {
        assert_status(answer, 200);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).expect(body);
        assert_eq!(body["plan"], plan.digest().to_string());
        for part in ["features", "statuses"] {
            let given = body[part].as_object().unwrap();
            let given: BTreeSet<&String> = given.keys().collect();
            assert_eq!(given, names(plan).iter().collect(), "{part}");
        }
    };

    let held = Held::new(ByHand::new(&former, &online), former.clone());
    let answers: Arc<dyn Answers> = Arc::new(Arc::clone(&held));
    let state = testing::state(Settings::default(), answers, &online);
    let server = run(state, store).await;
    let held = Holding(held);
    let first = server.spawn_online(features());
    held.begun().await;

    let answers: Arc<dyn Answers> = Arc::new(ByHand::new(&newer, &online));
    let services = BTreeMap::from([(SERVICE.to_owned(), Service::Ready(answers))]);
    let next = Served::new(PROJECT, services, BTreeMap::new(), online, Vec::new());
    server.state.serve(next);
    // Nobody waits for the one that is held, and it knows nothing of the newer plan.
    assert_by(&server.online(&[]).await, &newer);
    assert!(!first.is_finished());
    held.release(1);
    assert_by(&first.await.unwrap(), &former);
    assert_by(&server.online(&[]).await, &newer);
}

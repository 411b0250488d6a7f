//! What happened in the shop.
//!
//! All arithmetic is in integers until the last division, so that two machines agree.

use crate::random::Random;

/// 2025-01-01T00:00:00Z in microseconds since 1970.
pub(crate) const START: i64 = 1_735_689_600_000_000;
/// Days of history: January to March.
pub(crate) const DAYS: i64 = 90;
/// A day in microseconds.
pub(crate) const DAY: i64 = 86_400_000_000;
const MINUTE: i64 = 60_000_000;

const CUSTOMERS: i64 = 1_000;
const FIRST_CUSTOMER: i64 = 1_001;
/// Of so many carts one becomes an entity row.
const CARTS_PER_ENTITY_ROW: i64 = 6;

/// A row of the table of orders: an order, or its refund, which is a row of its own.
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) customer: i64,
    pub(crate) at: i64,
    pub(crate) cents: i64,
    pub(crate) refunded: bool,
}

/// What is known of a customer at a midnight.
pub(crate) struct Activity {
    pub(crate) customer: i64,
    pub(crate) at: i64,
    /// When it became known; the row of a correction has the same `at` and a later `created`.
    pub(crate) created: i64,
    pub(crate) days_since_last_purchase: Option<i64>,
    pub(crate) purchases_last_7d: i64,
    pub(crate) page_views_last_7d: i64,
    pub(crate) cart_abandonment_rate_30d: Option<f64>,
    pub(crate) mean_amount_30d: Option<f64>,
}

/// A cart, and whether it was bought, up to an hour later.
#[derive(Clone)]
pub(crate) struct Cart {
    pub(crate) customer: i64,
    pub(crate) at: i64,
    pub(crate) cents: i64,
    pub(crate) bought: bool,
}

/// All that happened, in the order of time.
pub(crate) struct History {
    pub(crate) orders: Vec<Order>,
    pub(crate) activities: Vec<Activity>,
    pub(crate) carts: Vec<Cart>,
}

impl History {
    /// Makes it up, always the same.
    pub(crate) fn generate() -> Self {
        let mut random = Random::new(2025);
        let mut history = Self {
            orders: Vec::new(),
            activities: Vec::new(),
            carts: Vec::new(),
        };
        for customer in FIRST_CUSTOMER..FIRST_CUSTOMER + CUSTOMERS {
            let life = Life::new(customer, &mut random);
            history.add_orders(&life, &mut random);
            history.add_activities(&life, &mut random);
            let carts = life.days.iter().flat_map(|day| &day.carts);
            let asked = carts.filter(|_| random.below(CARTS_PER_ENTITY_ROW) == 0);
            history.carts.extend(asked.cloned());
        }
        history
            .orders
            .sort_by_key(|order| (order.at, order.customer));
        for (id, order) in (1..).zip(&mut history.orders) {
            order.id = id;
        }
        history.activities.sort_by_key(|row| (row.at, row.created));
        history.carts.sort_by_key(|cart| (cart.at, cart.customer));
        history
    }

    fn add_orders(&mut self, life: &Life, random: &mut Random) {
        for cart in life.days.iter().flat_map(|day| &day.carts) {
            if !cart.bought {
                continue;
            }
            let at = cart.at + (1 + random.below(59)) * MINUTE;
            let order = |at, refunded| Order {
                id: 0,
                customer: cart.customer,
                at,
                cents: cart.cents,
                refunded,
            };
            self.orders.push(order(at, false));
            let refund = at + (1 + random.below(10)) * DAY;
            if random.chance(6) && refund < START + DAYS * DAY {
                self.orders.push(order(refund, true));
            }
        }
    }

    fn add_activities(&mut self, life: &Life, random: &mut Random) {
        for day in life.joined + 1..life.left {
            let at = START + day * DAY;
            let created = at + (120 + random.below(60)) * MINUTE;
            let row = life.activity(day, created);
            // A correction: some page views were counted late.
            if random.chance(1) && day < DAYS - 2 {
                self.activities.push(Activity {
                    page_views_last_7d: row.page_views_last_7d + 1 + random.below(20),
                    ..life.activity(day, created + DAY)
                });
            }
            self.activities.push(row);
        }
    }
}

/// A day of a customer.
struct Day {
    page_views: i64,
    carts: Vec<Cart>,
}

/// A customer from the first day to the last.
struct Life {
    customer: i64,
    /// The first day.
    joined: i64,
    /// The day after the last.
    left: i64,
    /// One for each day of the history.
    days: Vec<Day>,
}

impl Life {
    fn new(customer: i64, random: &mut Random) -> Self {
        // One in four comes late, and one in five leaves early: of those nothing recent is known.
        let joined = if random.chance(25) {
            random.below(DAYS - 10)
        } else {
            0
        };
        let left = if random.chance(20) {
            (joined + 10 + random.below(50)).min(DAYS)
        } else {
            DAYS
        };
        let carts_in_100_days = 5 + random.below(60);
        let usual_cents = 1_500 + random.below(12_000);
        let faithful = 25 + random.below(50);
        let days = (0..DAYS).map(|day| {
            let mut today = Day {
                page_views: 0,
                carts: Vec::new(),
            };
            if (joined..left).contains(&day) {
                today.page_views = random.below(3) * random.below(12);
                if random.chance(carts_in_100_days) {
                    let cents = usual_cents * (30 + random.below(170)) / 100;
                    // Who fills the cart far beyond the usual buys less often.
                    let likely = faithful - if cents > usual_cents { 15 } else { 0 };
                    today.carts.push(Cart {
                        customer,
                        at: START + day * DAY + random.below(23 * 60) * MINUTE,
                        cents,
                        bought: random.chance(likely),
                    });
                }
            }
            today
        });
        Self {
            customer,
            joined,
            left,
            days: days.collect(),
        }
    }

    /// What is known at the beginning of `day`.
    fn activity(&self, day: i64, created: i64) -> Activity {
        let bought: Vec<&Cart> = self.carts(day, 30).filter(|cart| cart.bought).collect();
        let carts = self.carts(day, 30).count();
        let midnight = START + day * DAY;
        let mut purchases = self.carts(day, day).filter(|cart| cart.bought);
        Activity {
            customer: self.customer,
            at: midnight,
            created,
            days_since_last_purchase: purchases.next_back().map(|cart| (midnight - cart.at) / DAY),
            purchases_last_7d: self.carts(day, 7).filter(|cart| cart.bought).count() as i64,
            page_views_last_7d: self.before(day, 7).iter().map(|day| day.page_views).sum(),
            cart_abandonment_rate_30d: (carts > 0)
                .then(|| (carts - bought.len()) as f64 / carts as f64),
            mean_amount_30d: (!bought.is_empty()).then(|| {
                let cents: i64 = bought.iter().map(|cart| cart.cents).sum();
                cents as f64 / bought.len() as f64 / 100.0
            }),
        }
    }

    /// The last `count` days before `day`.
    fn before(&self, day: i64, count: i64) -> &[Day] {
        &self.days[(day - count).max(0) as usize..day as usize]
    }

    fn carts(&self, day: i64, count: i64) -> impl DoubleEndedIterator<Item = &Cart> {
        self.before(day, count).iter().flat_map(|day| &day.carts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_after_the_end_and_no_label_is_known_before_it_is_asked_for() {
        let history = History::generate();
        let end = START + DAYS * DAY;
        assert!(
            history
                .orders
                .iter()
                .all(|order| (START..end).contains(&order.at))
        );
        assert!(
            history
                .activities
                .iter()
                .all(|row| row.at < row.created && row.created < end)
        );
        for cart in history.carts.iter().filter(|cart| cart.bought) {
            let mut orders = history
                .orders
                .iter()
                .filter(|order| order.customer == cart.customer);
            let order = orders.find(|order| !order.refunded && order.at > cart.at);
            assert!(
                order
                    .is_some_and(|order| order.cents == cart.cents && order.at < cart.at + DAY / 24)
            );
        }
    }

    #[test]
    fn every_case_of_the_example_is_there() {
        let history = History::generate();
        let rows = &history.activities;
        assert!(
            rows.iter()
                .any(|row| row.days_since_last_purchase.is_none())
        );
        assert!(
            rows.iter()
                .any(|row| row.cart_abandonment_rate_30d.is_none())
        );
        assert!(rows.iter().any(|row| row.mean_amount_30d.is_none()));
        assert!(history.orders.iter().any(|order| order.refunded));
        let labels = history.carts.iter().filter(|cart| cart.bought).count();
        assert!(labels * 10 > history.carts.len() * 3 && labels * 10 < history.carts.len() * 7);
    }
}

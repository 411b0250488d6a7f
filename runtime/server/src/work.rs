//! The work of a request, whichever way it came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;
use unskew_engine::Evaluated;
use unskew_store::{BriefAnswer, RequestRows};

use crate::body;
use crate::error::Problem;
use crate::guard::Place;
use crate::served::{Answers, FEW_ROWS};
use crate::state::State;
use crate::watch::{Context, PlanWatch, Stage, Where};

/// Up to this many rows are answered on the thread that received them, since another takes longer
/// to wake up. A component has a moment for that, a few milliseconds: it could run until its
/// deadline, and the thread would serve nobody in the meantime, not even `/health`. Plans that take
/// longer are evaluated elsewhere, as [`PlanWatch::pace`] says.
pub(crate) const INLINE_ROWS: usize = 256;

/// Bodies up to this size are read on the thread that received them: that takes less time than
/// another thread takes to wake up.
pub(crate) const INLINE_BYTES: usize = 16 << 10;

/// What is asked for.
pub(crate) struct Asked {
    /// What answers.
    pub(crate) service: Arc<dyn Answers>,
    /// Rows of its plan.
    pub(crate) rows: RequestRows,
}

/// A turn to be answered, of which there are as many as
/// [`Settings::concurrency`](crate::Settings::concurrency).
pub(crate) struct Turn {
    state: State,
    /// How long it was waited for.
    waited: Duration,
    _place: Place,
}

impl Turn {
    /// Waits for a turn.
    ///
    /// # Errors
    /// Too many wait already, or it takes too long.
    pub(crate) async fn take(state: &State) -> Result<Self, Problem> {
        let began = Instant::now();
        Ok(Self {
            _place: state.gate().lanes().all().enter().await?,
            waited: began.elapsed(),
            state: state.clone(),
        })
    }

    /// Does `work` where it may take its time. The turn lies with it: a client that goes away ends
    /// the waiting for it, not the work.
    pub(crate) async fn off_the_worker<T: Send + 'static>(
        self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<(Self, T), Problem> {
        off_the_worker(async move { Ok((self, work.await?)) }).await
    }

    /// The same turn and a place among the requests of the service, if it runs components. Who
    /// waits for one lets others have the turn meanwhile.
    async fn with_share(self, asked: &Asked) -> Result<(Self, Option<Place>), Problem> {
        let plan = asked.service.plan();
        if plan.steps.is_empty() {
            return Ok((self, None));
        }
        let lane = self.state.gate().lanes().of(plan.service.as_deref());
        if let Some(share) = lane.try_enter() {
            return Ok((self, Some(share)));
        }
        let state = self.state.clone();
        drop(self);
        let share = lane.enter().await?;
        Ok((Self::take(&state).await?, Some(share)))
    }

    /// Computes what is asked for, and makes an answer of it.
    ///
    /// # Errors
    /// Too many requests of the service are answered, the online store is unavailable, a component
    /// failed, or those of `finish`.
    pub(crate) async fn answer<T: Send + 'static>(
        self,
        asked: Asked,
        finish: impl FnOnce(&Asked, &Evaluated) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let plan = asked.service.watch(self.state.watch());
        let rows = asked.rows.as_of.len();
        let place = match &plan {
            _ if rows > INLINE_ROWS => Where::Alone,
            Some(plan) if !asked.service.plan().steps.is_empty() => match plan.pace.place() {
                Where::Together if rows > FEW_ROWS => Where::Alone,
                place => place,
            },
            _ => Where::Here,
        };
        let context = Context::current();
        if let Some(plan) = &plan {
            plan.asked(rows);
            if let Some(context) = &context {
                context.asked(plan, rows);
            }
        }
        let answered = Answered {
            plan,
            context,
            finish,
        };
        let brief = match place {
            Where::Here => Some(asked.service.answer_briefly(&asked.rows).await),
            Where::Together => Some(asked.service.answer_together(&asked.rows).await),
            Where::Alone => None,
        };
        let brief = brief.transpose();
        let joined = match brief.inspect_err(|error| self.state.watch().failed(error))? {
            Some(BriefAnswer::Done(evaluated)) => {
                answered.waited(self.waited);
                return answered.write(&self.state, asked, evaluated);
            }
            Some(BriefAnswer::Unfinished(joined)) => Some(joined),
            None => None,
        };
        let (waited, began) = (self.waited, Instant::now());
        let (turn, share) = self.with_share(&asked).await?;
        answered.waited(waited + began.elapsed());
        let state = turn.state.clone();
        let work = turn.off_the_worker(async move {
            let evaluated = match joined {
                Some(joined) => asked.service.finish(&asked.rows, joined).await,
                None => asked.service.answer(&asked.rows).await,
            }
            .inspect_err(|error| state.watch().failed(error))?;
            let answer = answered.write(&state, asked, evaluated);
            drop(share);
            answer
        });
        work.await.map(|(_, answer)| answer)
    }
}

/// What becomes of the features that were computed.
struct Answered<F> {
    plan: Option<Arc<PlanWatch>>,
    context: Option<Context>,
    finish: F,
}

impl<F> Answered<F> {
    fn waited(&self, span: Duration) {
        if let Some(plan) = &self.plan {
            plan.took(Stage::Turn, span);
        }
    }

    fn write<T>(self, state: &State, asked: Asked, evaluated: Evaluated) -> Result<T, Problem>
    where
        F: FnOnce(&Asked, &Evaluated) -> Result<T, Problem>,
    {
        let began = Instant::now();
        let answer = (self.finish)(&asked, &evaluated)?;
        if let Some(plan) = &self.plan {
            plan.took(Stage::Encode, began.elapsed());
            let watch = state.watch();
            watch.log(plan, self.context.as_ref(), asked.rows, evaluated);
        }
        Ok(answer)
    }
}

/// Runs `work`, but not beyond the time that an answer may take.
pub(crate) async fn in_time<T>(
    state: &State,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let timeout = state.settings().timeout;
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => done,
        Err(_) => Err(Problem::Late {
            seconds: body::seconds(timeout),
        }),
    }
}

/// Runs `work` on a thread where it may take its time.
pub(crate) async fn off_the_worker<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let runtime = tokio::runtime::Handle::current();
    let work = work.in_current_span();
    tokio::task::spawn_blocking(move || runtime.block_on(work))
        .await
        .unwrap_or_else(|_| Err(panicked()))
}

/// The answer to a request in which a panic happened.
pub(crate) fn panicked() -> Problem {
    Problem::Internal("it panicked; its log says where".to_owned())
}

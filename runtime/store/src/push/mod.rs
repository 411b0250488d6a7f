//! Rows that clients push: source rows, appended to the source and written online at once.
//!
//! ```text
//! rows ─▶ Appender::check ─▶ a new file of the source          (offline first)
//!              └▶ each view: batch transformation ─▶ newer wins online
//! ```
//!
//! What a materialization would make of the new file is what is written: the same component, the
//! same coercions, the same bytes. So the next one finds nothing to do, and may run at any time.

mod online;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use unskew_core::project::Project;
use unskew_core::text;
use unskew_core::types::DataType;
use unskew_core::view::{Source, View};
use unskew_engine::ViewRunner;
use unskew_offline::{Appender, Components, Offline, OfflineError, PushedRows};
use unskew_online::{OnlineStore, ViewKey, ViewState, Wanted};

use self::online::Made;
use crate::applied::Applied;
use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// Rows to be pushed.
#[derive(Clone, Debug)]
pub struct Push {
    /// Whose rows they are.
    pub target: PushTarget,
    /// The rows, with the columns of the source, by their names in definitions or in its files.
    pub rows: PushedRows,
    /// Where they go.
    pub to: PushTo,
    /// The clock, in microseconds since 1970: no row may lie after it.
    pub now: i64,
}

/// Whose rows are pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushTarget {
    /// A source, and so all of its views.
    Source(String),
    /// A view. Online only, it alone gets the rows, and no other columns are needed than its own;
    /// else they are rows of its source, and all views of that get them.
    View(String),
}

/// Where pushed rows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushTo {
    /// Into the online store alone: they are marked, for no training set will know them.
    Online,
    /// Into the source alone: they are online after the next materialization.
    Offline,
    /// Into the source, then into the online store.
    #[default]
    OnlineAndOffline,
}

impl PushTo {
    const fn is_online(self) -> bool {
        matches!(self, Self::Online | Self::OnlineAndOffline)
    }

    const fn is_offline(self) -> bool {
        matches!(self, Self::Offline | Self::OnlineAndOffline)
    }

    /// The name by which clients know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::OnlineAndOffline => "online_and_offline",
        }
    }
}

impl fmt::Display for PushTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PushTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Online, Self::Offline, Self::OnlineAndOffline];
        all.into_iter().find(|to| to.name() == text).ok_or_else(|| {
            format!(
                "`{text}` is no place to push to; there are: {}",
                text::list(all)
            )
        })
    }
}

/// What became of rows that were pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// The source.
    pub source: String,
    /// How many rows were pushed.
    pub rows: u64,
    /// The files that were added to the source: one, or one for each folder into which rows went.
    pub files: Vec<String>,
    /// How many of the rows went online and nowhere else.
    pub online_only: u64,
    /// What became of them online, for each view that was written.
    pub views: Vec<PushedView>,
    /// What whoever pushes should know.
    pub warnings: Vec<String>,
}

/// What became of pushed rows in a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PushedView {
    /// The view.
    pub view: String,
    /// How many rows of the view were made of them.
    pub rows: u64,
    /// How many entities have a new row now.
    pub written: u64,
    /// How many entities had the same row, or a newer one.
    pub kept: u64,
    /// How many rows have a null join key, and so count for nobody.
    pub without_key: u64,
    /// How many rows become available only later, or never: those are left to a materialization.
    pub not_yet: u64,
}

/// What was applied, ready to take rows: no call of it but the first deletion needs the registry.
///
/// Which columns and folders a source has is found out at the first push, and kept; what views were
/// in former states, at the first deletion.
pub struct Pusher {
    pub(crate) store: FeatureStore,
    /// The number of the state.
    pub(crate) number: u64,
    /// The definitions of the states before it, newest first.
    pub(crate) former: OnceCell<Vec<Project>>,
    pub(crate) offline: Offline,
    pub(crate) online: Arc<dyn OnlineStore>,
    pub(crate) components: Components,
    aliases: BTreeMap<String, String>,
    sources: BTreeMap<String, PushSource>,
    views: BTreeMap<String, Arc<PushView>>,
}

struct PushSource {
    source: Source,
    views: Vec<Arc<PushView>>,
    appender: OnceCell<Arc<Appender>>,
}

/// A view with what makes its rows.
pub(crate) struct PushView {
    pub(crate) view: Arc<View>,
    pub(crate) key: Arc<ViewKey>,
    pub(crate) runner: ViewRunner,
    /// For rows of this view alone.
    appender: OnceCell<Arc<Appender>>,
}

impl FeatureStore {
    /// Pushes rows: checks all of them, appends them to their source, and writes them online under
    /// every view of the source.
    ///
    /// # Errors
    /// As those of [`Pusher::push`]; or nothing is applied.
    pub async fn push(&self, push: Push) -> Result<Pushed, StoreError> {
        self.pusher().await?.push(push).await
    }

    /// What is applied, ready to take rows.
    ///
    /// # Errors
    /// Nothing is applied, or a component cannot be loaded.
    pub async fn pusher(&self) -> Result<Pusher, StoreError> {
        Pusher::new(self, &*self.applied().await?)
    }
}

impl Pusher {
    /// The views of `applied`, with the sources and the online store of `store`.
    ///
    /// # Errors
    /// The online store cannot be opened, or a component is not what its view needs.
    pub fn new(store: &FeatureStore, applied: &Applied) -> Result<Self, StoreError> {
        let project = applied.project();
        let mut views = BTreeMap::new();
        for defined in project.views.values() {
            let view = Arc::clone(&defined.value.view);
            let runner = ViewRunner::new(Arc::clone(&view), applied.components())
                .map_err(OfflineError::from)?;
            let push_view = PushView {
                key: Arc::new(ViewKey::of(&project.name, &view)),
                runner,
                appender: OnceCell::new(),
                view: Arc::clone(&view),
            };
            views.insert(view.name.clone(), Arc::new(push_view));
        }
        let sources = project.sources.iter().map(|(name, defined)| {
            let of_source = views.values().filter(|view| view.view.source.name == *name);
            let source = PushSource {
                source: defined.value.clone(),
                views: of_source.map(Arc::clone).collect(),
                appender: OnceCell::new(),
            };
            (name.clone(), source)
        });
        let aliases = project.aliases.iter();
        Ok(Self {
            store: store.clone(),
            number: applied.state.number,
            former: OnceCell::new(),
            offline: store.offline(),
            online: store.online()?,
            components: applied.components().clone(),
            aliases: aliases
                .map(|(name, alias)| (name.clone(), alias.value.alias_of.clone()))
                .collect(),
            sources: sources.collect(),
            views,
        })
    }

    /// The columns that rows of a target may have, with their types, for who reads rows of texts or
    /// JSON.
    ///
    /// # Errors
    /// There is no such source or view, or the source's files cannot be read.
    pub async fn columns(
        &self,
        target: &PushTarget,
        to: PushTo,
    ) -> Result<Vec<(String, DataType)>, StoreError> {
        Ok(self.appender(target, to).await?.0.columns())
    }

    /// Pushes rows. All are checked first: if one cannot be taken, none is, and the error lists
    /// them.
    ///
    /// A push that fails, or of which no answer came, can be repeated: rows that are there already
    /// change nothing of what is served or trained on.
    ///
    /// # Errors
    /// There is no such source or view; a column is missing or unknown; a value, an instant or a
    /// component refuses a row; the source is no folder; the source or the online store cannot be
    /// written.
    pub async fn push(&self, push: Push) -> Result<Pushed, StoreError> {
        let Push {
            target,
            rows,
            to,
            now,
        } = push;
        let (appender, views) = self.appender(&target, to).await?;
        if to.is_offline() {
            appender.check_folder()?;
        }
        let source = appender.source().name.clone();
        let mut pushed = Pushed {
            source: source.clone(),
            rows: rows.batch().num_rows() as u64,
            ..Pushed::default()
        };
        if pushed.rows == 0 {
            return Ok(pushed);
        }
        let (checker, makers) = (Arc::clone(&appender), views.clone());
        // Components may take their time.
        let made = move || -> Result<_, StoreError> {
            let rows = checker.check(&rows, now)?;
            let mut made = Vec::with_capacity(makers.len());
            for view in &makers {
                made.push(Made::of(view, &rows, to, now)?);
            }
            Ok((rows, made))
        };
        let (rows, made) = tokio::task::spawn_blocking(made).await??;
        let of_online = views.iter().zip(made).filter(|(view, _)| view.view.online);
        let of_online: Vec<(&Arc<PushView>, Made)> = of_online.collect();
        let states = || self.states(of_online.iter().map(|(view, _)| &view.key));
        if !to.is_online() {
            pushed.files = appender.append(&rows, now).await?;
            // Asked now, a run that has not seen the new files has its mark in the state, or has
            // moved the watermark.
            match states().await {
                Ok(states) => {
                    let views = of_online.iter().zip(states);
                    let warnings =
                        views.flat_map(|((view, made), state)| made.told(view, state, now));
                    pushed.warnings.extend(warnings);
                }
                // The rows are where they were to go.
                Err(error) => pushed.warnings.push(format!(
                    "whether `unskew materialize-incremental` will take these rows is not known: \
                     {error}"
                )),
            }
            return Ok(pushed);
        }
        // A store that is down is found out before anything is written: pushes that are repeated
        // until it is back would each add a file.
        let states = states().await?;
        if to.is_offline() {
            pushed.files = appender.append(&rows, now).await?;
        } else {
            pushed.online_only = pushed.rows;
        }
        for ((view, made), state) in of_online.into_iter().zip(states) {
            let written = self.write(view, made, state, now, &mut pushed).await;
            if let Err(source) = written {
                return Err(match pushed.files.is_empty() {
                    true => source,
                    false => StoreError::OfflineAlone {
                        files: pushed.files,
                        source: Box::new(source),
                    },
                });
            }
        }
        Ok(pushed)
    }

    /// How far views are materialized, in one round trip.
    async fn states(
        &self,
        views: impl Iterator<Item = &Arc<ViewKey>>,
    ) -> Result<Vec<Option<ViewState>>, StoreError> {
        let wanted = views.map(|view| Wanted {
            view: Arc::clone(view),
            entities: Vec::new(),
        });
        let wanted: Vec<Wanted> = wanted.collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let held = self.online.get(wanted).await?;
        Ok(held.into_iter().map(|held| held.state).collect())
    }

    /// What checks and appends rows of a target, and the views whose rows are made of them.
    async fn appender(
        &self,
        target: &PushTarget,
        to: PushTo,
    ) -> Result<(Arc<Appender>, Vec<Arc<PushView>>), StoreError> {
        let source = match target {
            PushTarget::Source(name) => name,
            PushTarget::View(name) => {
                let view = self.view(name)?;
                if to == PushTo::Online {
                    if !view.view.online {
                        let view = name.clone();
                        return Err(StoreError::NotOnline { view });
                    }
                    let views = vec![Arc::clone(view)];
                    let opened = view
                        .appender
                        .get_or_try_init(|| self.open(&view.view.source, &views));
                    return Ok((Arc::clone(opened.await?), views));
                }
                &view.view.source.name
            }
        };
        let Some(found) = self.sources.get(source) else {
            return Err(StoreError::UnknownSource {
                name: source.clone(),
                valid: text::list(self.sources.keys()),
            });
        };
        let opened = found
            .appender
            .get_or_try_init(|| self.open(&found.source, &found.views));
        Ok((Arc::clone(opened.await?), found.views.clone()))
    }

    async fn open(
        &self,
        source: &Source,
        views: &[Arc<PushView>],
    ) -> Result<Arc<Appender>, StoreError> {
        let views = views.iter().map(|view| Arc::clone(&view.view)).collect();
        Ok(Arc::new(self.offline.appender(source, views).await?))
    }

    /// The view of that name.
    pub(crate) fn view(&self, name: &str) -> Result<&Arc<PushView>, StoreError> {
        if let Some(view) = self.views.get(name) {
            return Ok(view);
        }
        Err(match self.aliases.get(name) {
            Some(view) => StoreError::AliasNamed {
                name: name.to_owned(),
                view: view.clone(),
            },
            None => StoreError::UnknownView {
                name: name.to_owned(),
                valid: text::list(self.views.keys()),
            },
        })
    }
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher")
            .field("sources", &self.sources.keys())
            .field("views", &self.views.keys())
            .finish_non_exhaustive()
    }
}

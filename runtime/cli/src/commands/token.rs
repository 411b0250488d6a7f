//! `unskew token`: the tokens that a server asks for.

use std::path::{Path, PathBuf};

use serde::Serialize;
use unskew_core::{text, time};
use unskew_server::{NewToken, TokenEntry, Tokens};

use crate::Outcome;
use crate::arguments::{self, TokenCommand};
use crate::clock;
use crate::output::Output;
use crate::table::Table;

/// A token that was made.
#[derive(Serialize)]
struct Made<'a> {
    /// The only place where it is ever shown.
    token: &'a str,
    entry: &'a TokenEntry,
    file: Option<&'a Path>,
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

/// Makes, shows or removes tokens.
pub(crate) fn run(arguments: arguments::Token, output: &Output) -> anyhow::Result<Outcome> {
    match arguments.command {
        TokenCommand::New(arguments) => new(arguments, output)?,
        TokenCommand::List(file) => list(&file.tokens, output)?,
        TokenCommand::Remove { name, file } => {
            let mut tokens = Tokens::read(&file.tokens)?;
            tokens.remove(&name)?;
            tokens.write(&file.tokens)?;
            output.print(&Removed { removed: &name }, |_| {
                format!("removed token `{name}`\n")
            })?;
        }
    }
    Ok(Outcome::Done)
}

fn new(arguments: arguments::NewToken, output: &Output) -> anyhow::Result<()> {
    let token = NewToken::generate()?;
    let expires = arguments.expires.map(|expiry| expiry.from(clock::now()));
    let entry = TokenEntry {
        name: arguments.name,
        hash: token.hash(),
        rights: arguments.rights.into_iter().collect(),
        project: arguments.project,
        expires: expires.map(|at| at.min(time::MAX)),
    };
    let file: Option<PathBuf> = arguments.tokens;
    if let Some(file) = &file {
        let mut tokens = if file.exists() {
            Tokens::read(file)?
        } else {
            Tokens::default()
        };
        tokens.add(entry.clone())?;
        tokens.write(file)?;
    }
    let made = Made {
        token: token.text(),
        entry: &entry,
        file: file.as_deref(),
    };
    let json = serde_json::to_string_pretty(&entry)?;
    output.print(&made, |made| {
        let kept = match made.file {
            Some(file) => format!("its hash is in `{}`", file.display()),
            None => format!("the entry for the list `tokens` of the server's file:\n{json}"),
        };
        format!(
            "{}\n\nshown this once; a client sends it as `authorization: Bearer TOKEN`\n{kept}\n",
            made.token
        )
    })
}

fn list(file: &Path, output: &Output) -> anyhow::Result<()> {
    let tokens = Tokens::read(file)?;
    let now = clock::now();
    output.print(&tokens, |tokens| {
        let mut table = Table::new(&["name", "rights", "project", "expires"], &[]);
        for entry in &tokens.tokens {
            let expires = match entry.expires {
                None => "never".to_owned(),
                Some(at) if entry.is_expired(now) => format!("{}, over", time::format(at)),
                Some(at) => time::format(at),
            };
            let project = entry.project.clone().unwrap_or_else(|| "any".to_owned());
            table.row([
                entry.name.clone(),
                text::list(&entry.rights),
                project,
                expires,
            ]);
        }
        table.text("")
    })
}

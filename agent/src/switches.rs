//! `--[no-]sampler.NAME` and node_exporter's `--[no-]collector.NAME`: one pair of flags for each sampler.
//!
//! The names come from the list of samplers, so they cannot be fields of a struct.

use crate::sampler::{OTHER_COLLECTORS, SAMPLERS};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;

/// Which samplers were switched on or off by flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SamplerSwitches {
    switched: BTreeMap<String, bool>,
    defaults_off: bool,
}

/// What stands before a name: switched off by `no-`, and either word for it.
const PREFIXES: [(&str, bool); 4] =
    [("sampler.", true), ("no-sampler.", false), ("collector.", true), ("no-collector.", false)];

const DISABLE_DEFAULTS: &str = "collector.disable-defaults";

impl SamplerSwitches {
    /// Switches a sampler, as its flag would.
    pub fn switch(&mut self, name: impl Into<String>, on: bool) {
        self.switched.insert(name.into(), on);
    }

    /// Whether flags switch a sampler on or off, or leave that to others.
    pub fn get(&self, name: &str) -> Option<bool> {
        self.switched.get(name).copied().or(self.defaults_off.then_some(false))
    }

    /// Collectors of node_exporter that were asked for and that the agent does not have.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let on = self.switched.iter().filter(|(_, on)| **on);
        on.map(|(name, _)| name.as_str()).filter(|name| OTHER_COLLECTORS.contains(name))
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    SAMPLERS.iter().map(|kind| kind.name).chain(OTHER_COLLECTORS.iter().copied())
}

impl clap::FromArgMatches for SamplerSwitches {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut switches = SamplerSwitches::default();
        switches.update_from_arg_matches(matches)?;
        Ok(switches)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.defaults_off |= matches.get_flag(DISABLE_DEFAULTS);
        for name in names() {
            for (prefix, on) in PREFIXES {
                if matches.get_flag(&format!("{prefix}{name}")) {
                    self.switch(name, on);
                }
            }
        }
        Ok(())
    }
}

impl clap::Args for SamplerSwitches {
    fn augment_args(command: Command) -> Command {
        let flag = |name: String| Arg::new(name.clone()).long(name).action(ArgAction::SetTrue);
        let kept = format!("no-{DISABLE_DEFAULTS}");
        let disable = flag(DISABLE_DEFAULTS.into())
            .help("Switch all samplers off that no flag switches on")
            .help_heading("Samplers")
            .overrides_with(kept.clone());
        let mut command = command.arg(disable).arg(flag(kept).overrides_with(DISABLE_DEFAULTS).hide(true));
        for name in names() {
            let ours = SAMPLERS.iter().find(|kind| kind.name == name);
            for (prefix, on) in PREFIXES {
                let arg = flag(format!("{prefix}{name}")).help_heading("Samplers");
                // The last of two contradicting flags wins, as in node_exporter.
                let opposites = PREFIXES.iter().filter(|(_, other)| *other != on);
                let arg = arg.overrides_with_all(opposites.map(|(other, _)| format!("{other}{name}")));
                let shown = ours.is_some_and(|kind| kind.default_on != on) && prefix.contains("sampler");
                let verb = if on { "Switch on" } else { "Switch off" };
                command = command.arg(arg.hide(!shown).help(format!("{verb} the sampler {name}")));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

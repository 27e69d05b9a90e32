//! etcd's feature gates: `--feature-gates A=true,B=false`.
//!
//! Owns the names, their stages and what is on. What a gate does lives where it is looked at.

use std::collections::BTreeMap;

use super::flags::Support;
use super::go_syntax::parse_bool;

/// How settled a gate is; `AllAlpha` and `AllBeta` switch those of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off by default.
    Alpha,
    /// On by default.
    Beta,
}

impl Stage {
    /// The label that `etcd_server_feature_enabled` carries.
    pub fn label(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// One gate that etcd 3.7 knows.
#[derive(Debug)]
pub struct Gate {
    /// As written in the flag.
    pub name: &'static str,
    /// How settled it is.
    pub stage: Stage,
    /// Whether it is on unless set.
    pub default: bool,
    /// What Quorate does with it.
    pub support: Support,
}

const fn gate(name: &'static str, stage: Stage, default: bool, support: Support) -> Gate {
    Gate {
        name,
        stage,
        default,
        support,
    }
}

/// Every gate, by name.
pub const GATES: [Gate; 11] = [
    gate("AllAlpha", Stage::Alpha, false, Support::Works),
    gate("AllBeta", Stage::Beta, false, Support::Works),
    gate("CompactHashCheck", Stage::Alpha, false, Support::Works),
    gate(
        "FastLeaseKeepAlive",
        Stage::Beta,
        true,
        Support::NoEffect("keep-alives never wait for the applied index"),
    ),
    gate("InitialCorruptCheck", Stage::Alpha, false, Support::Works),
    gate("LeaseCheckpoint", Stage::Alpha, false, Support::Works),
    gate(
        "LeaseCheckpointPersist",
        Stage::Alpha,
        false,
        Support::NoEffect("lease checkpoints are always kept"),
    ),
    gate(
        "PriorityRequest",
        Stage::Alpha,
        false,
        Support::NoEffect("the end of a lease is proposed whatever the load"),
    ),
    gate("SetMemberLocalAddr", Stage::Alpha, false, Support::Works),
    gate(
        "StopGRPCServiceOnDefrag",
        Stage::Alpha,
        false,
        Support::NoEffect("defragmentation stops nothing"),
    ),
    gate(
        "TxnModeWriteWithSharedBuffer",
        Stage::Beta,
        true,
        Support::NoEffect("the store has no such buffer"),
    ),
];

/// The gates that were set, with those that a group switched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<&'static str, bool>,
}

impl FeatureGates {
    /// Takes in one value of the flag; several add up.
    ///
    /// # Errors
    /// With etcd's message for the first bad pair.
    pub(super) fn merge(&mut self, text: &str) -> Result<(), String> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", pair.trim())),
            };
            let on = parse_bool(value).ok_or_else(|| {
                format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
            })?;
            let gate = GATES.iter().find(|gate| gate.name == name);
            pairs.insert(
                gate.ok_or_else(|| format!("unrecognized feature gate: {name}"))?
                    .name,
                on,
            );
        }
        self.set.extend(pairs.iter());
        for (group, stage) in [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)] {
            let Some(on) = pairs.get(group) else { continue };
            for gate in GATES
                .iter()
                .filter(|gate| gate.stage == stage && gate.name != group)
            {
                self.set.entry(gate.name).or_insert(*on);
            }
        }
        Ok(())
    }

    /// Whether the gate `name` is on.
    pub fn enabled(&self, name: &str) -> bool {
        let gate = GATES
            .iter()
            .find(|gate| gate.name == name)
            .expect("gates are named by the table");
        self.set.get(gate.name).copied().unwrap_or(gate.default)
    }

    /// The gates whose setting differs from their default.
    pub fn changed(&self) -> impl Iterator<Item = &'static Gate> {
        GATES
            .iter()
            .filter(|gate| self.enabled(gate.name) != gate.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_switches_the_unset_gates_of_its_stage() {
        let mut gates = FeatureGates::default();
        gates.merge("AllAlpha=true,PriorityRequest=false").unwrap();
        assert!(gates.enabled("LeaseCheckpoint") && !gates.enabled("PriorityRequest"));
        gates.merge("AllBeta=f").unwrap();
        assert!(!gates.enabled("FastLeaseKeepAlive"));
        gates.merge("FastLeaseKeepAlive=1").unwrap();
        assert!(gates.enabled("FastLeaseKeepAlive"), "a later value wins");
    }

    #[test]
    fn bad_gates_are_refused_in_etcds_words() {
        for (text, want) in [
            ("x=true", "unrecognized feature gate: x"),
            ("AllAlpha", "missing bool value for AllAlpha"),
            (
                "AllAlpha=s",
                "invalid value of AllAlpha=s, err: strconv.ParseBool: parsing \"s\": invalid syntax",
            ),
        ] {
            assert_eq!(FeatureGates::default().merge(text).unwrap_err(), want);
        }
    }
}

//! What the mesh as a whole wants: set by admins, the same on every node.

use ::mesh::Command;
use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ledger::{NEAR_MIN, Terms};
use crdt::roster::{Policy, Role, Roster};
use web_gateway::api::{ApiError, PolicySet, PolicyView};

use super::Api;

/// All jobs of the mesh serve an idea that their submitters name: `on` or `off`.
pub(super) const REQUIRE_IDEA: &str = "require-idea";
/// From which score on a duplicate that was found counts as one without anybody saying so: `never`, or 0.55 to 1.
const DUPLICATES: &str = "duplicates";
/// How much the terms of a rank count: `value=5 age=0`.
pub(super) const WEIGHTS: &str = "weights";

/// Each policy's name, what it is about, and what holds where nobody said anything.
const KNOWN: [(&str, &str, &str); 3] = [
    (REQUIRE_IDEA, "whether a job must name the idea that it serves: on or off", "off"),
    (DUPLICATES, "the score from which on a duplicate that was found counts as accepted: never, or 0.55 to 1", "never"),
    (
        WEIGHTS,
        "how much each term of `v6 idea top` counts",
        "value=3 effort=1 confidence=1 votes=2 support=2 age=1 novelty=1",
    ),
];

pub(super) async fn list(api: &Api) -> Result<Vec<PolicyView>, ApiError> {
    api.ask(|core| {
        let roster = core.replica().roster();
        let view = |(name, about, default): &(&str, &str, &str)| {
            let set = roster.policy(name);
            PolicyView {
                name: (*name).to_owned(),
                value: set.unwrap_or(default).to_owned(),
                is_set: set.is_some(),
                about: (*about).to_owned(),
            }
        };
        KNOWN.iter().map(view).collect()
    })
    .await
}

/// Sets a policy; an empty value takes it back.
pub(super) async fn set(api: &Api, name: String, value: String) -> Result<PolicySet, ApiError> {
    let value = value.trim().to_owned();
    check(&name, &value).map_err(|reason| ApiError::BadRequest(format!("{reason}; nothing was changed")))?;
    let (me, asked) = (api.0.me, name.clone());
    let (is_admin, number) = api
        .ask(move |core| {
            let roster = core.replica().roster();
            let number = roster.policies.get(&asked).map_or(0, |(number, _)| number.saturating_add(1));
            (roster.role(&me).is_some_and(Role::may_administer), number)
        })
        .await?;
    if !is_admin {
        return Err(ApiError::NotAllowed("only an admin may set a policy of the mesh".into()));
    }
    let change = Change::register(DocId::ROSTER, &Key::Policy(name.clone(), number), &Policy { value: value.clone() });
    let ack = api.command(Command::Write(vec![change])).await?;
    Ok(PolicySet { name, value, durable_on: ack.durable_on })
}

fn check(name: &str, value: &str) -> Result<(), String> {
    match (name, value) {
        (_, "") if KNOWN.iter().any(|(known, ..)| *known == name) => Ok(()),
        (REQUIRE_IDEA, "on" | "off") => Ok(()),
        (REQUIRE_IDEA, other) => Err(format!("{REQUIRE_IDEA} is on or off, not {other:?}")),
        (DUPLICATES, "never") => Ok(()),
        (DUPLICATES, score) => {
            let fits = score.parse().is_ok_and(|score: f64| (NEAR_MIN..=1.0).contains(&score));
            if fits { Ok(()) } else { Err(format!("{DUPLICATES} is never, or {NEAR_MIN} to 1, not {score:?}")) }
        }
        (WEIGHTS, weights) => Terms::weights(weights).map(|_| ()),
        (other, _) => Err(format!("{other:?} is no policy: there are {}", KNOWN.map(|(name, ..)| name).join(", "))),
    }
}

/// Whether a duplicate that was found with this score, in thousandths, counts as one by the mesh's policy.
pub(super) fn accepts_duplicate(roster: &Roster, score: u16) -> bool {
    let least: Option<f64> = roster.policy(DUPLICATES).and_then(|score| score.parse().ok());
    least.is_some_and(|least| f64::from(score) >= least * 1_000.0)
}

//! What a replica tells of its documents, through its public face.

use crdt::SigningKey;
use crdt::bundle::{Bundle, Change};
use crdt::doc::{DocId, Key, TaskRange};
use crdt::ids::{InviteId, JobId, NodeId, NoteId};
use crdt::job::{Accept, Basis, Claim, Exit, JobSpec, Outcome, RunReport, TaskReport, job_id_of_nonce};
use crdt::ledger::{Content, Delegation, Kind, Signed, Status, Verdict};
use crdt::notebook::{Notebook, rebuild};
use crdt::replica::{FoundingWords, Replica};
use crdt::roster::{Admission, Invite, Revocation, Role};
use crdt::shelf::{MemoryShelf, Shelf, Table};

const JOB: JobId = JobId([5; 16]);
const NOTE: NoteId = NoteId([5; 16]);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

fn take(replica: &mut Replica<MemoryShelf>, bundle: &Bundle) {
    let decoded = Bundle::decode(bundle.wire.clone()).expect("sound");
    replica.ingest(decoded, 1_000);
}

/// A mesh of the founder (1) and a worker (2), as the founder knows it, and its bundles.
fn mesh() -> (Replica<MemoryShelf>, Vec<Bundle>) {
    let words = FoundingWords {
        mesh_name: "mesh".into(),
        node_name: "one".into(),
        recovery: [7; 32],
        nonce: [8; 16],
        now_ms: 1_000,
    };
    let (mut replica, first, _) = Replica::found(MemoryShelf::default(), &key(1), &words);
    let invite = key(9);
    let id = InviteId(invite.verifying_key().to_bytes());
    let words = Invite { role: Role::Worker, expires_ms: 9_000, uses: 1, person: None };
    let admission = Admission::sign(replica.mesh(), &key(2), "two", &invite, 1_000);
    let changes = [
        Change::register(DocId::ROSTER, &Key::Invite(id), &words),
        Change::register(DocId::ROSTER, &Key::Member(node(2)), &admission),
    ];
    let (second, _) = replica.append(&key(1), 1_000, &changes);
    (replica, vec![first, second])
}

fn replica_of(mesh: &Replica<MemoryShelf>, bundles: &[&Bundle]) -> Replica<MemoryShelf> {
    let mut replica = Replica::begin(MemoryShelf::default(), mesh.mesh(), mesh.founder());
    bundles.iter().for_each(|bundle| take(&mut replica, bundle));
    replica
}

fn spec(replica: &Replica<MemoryShelf>, by: u8) -> JobSpec {
    let person = replica.roster().person(&node(by)).expect("a member");
    JobSpec { command: vec!["true".into()], person, created_ms: 1_000, ..JobSpec::default() }
}

#[test]
fn documents_of_which_a_revocation_leaves_nothing_leave_no_trace_in_the_state_hash() {
    let (mut one, bundles) = mesh();
    let mut two = replica_of(&one, &[&bundles[0], &bundles[1]]);
    let edit = Notebook::new(NOTE).edit(node(2), "text", 1).expect("an edit").expect("a change");
    let changes =
        [Change::register(DocId::job(JOB), &Key::Spec, &spec(&two, 2)), Change::notebook(DocId::note(NOTE), edit)];
    let (late, _) = two.append(&key(2), 1_000, &changes);
    let before = one.state_hash();
    take(&mut one, &late);
    assert_ne!(one.state_hash(), before);
    let cut = Revocation { last_seq: 0, last_hash: crdt::ids::BundleHash::ZERO, reason: String::new(), recovery: None };
    let (revoked, _) = one.append(&key(1), 1_000, &[Change::register(DocId::ROSTER, &Key::Revoke(node(2)), &cut)]);
    let other = replica_of(&one, &[&bundles[0], &bundles[1], &revoked, &late]);
    assert_eq!(one.feeds(), other.feeds());
    assert_eq!(one.state_hash(), other.state_hash());
    let never = replica_of(&one, &[&bundles[0], &bundles[1], &revoked]);
    assert_eq!(one.state_hash(), never.state_hash());
}

#[test]
fn a_job_ended_when_its_accepted_attempt_did_and_else_when_that_was_accepted() {
    let (mut one, bundles) = mesh();
    let mut two = replica_of(&one, &[&bundles[0], &bundles[1]]);
    let (doc, range) = (DocId::job(JOB), TaskRange { start: 0, end: 1 });
    let (submitted, _) = one.append(&key(1), 1_000, &[Change::register(doc, &Key::Spec, &spec(&one, 1))]);
    take(&mut two, &submitted);
    let claim = Claim {
        bid_micros: 1,
        price_micros_per_hour: 0,
        seen: Vec::new(),
        watchers: vec![node(1)],
        basis: Basis::First,
        start_by_ms: 1_000,
        at_ms: 1_010,
    };
    let run = RunReport {
        tasks: vec![TaskReport(0, 1_020, Some((1_050, Exit::Code(0))))],
        ended: true,
        ..RunReport::default()
    };
    let changes =
        [Change::register(doc, &Key::Claim(1, range), &claim), Change::register(doc, &Key::Run(1, range), &run)];
    let (ran, _) = two.append(&key(2), 1_000, &changes);
    let mut third = replica_of(&one, &[&bundles[0], &bundles[1], &submitted]);
    take(&mut one, &ran);
    assert_eq!(one.job_row(JOB).expect("a row").ended_ms, None);
    let accept = |outcome, attempt, node| Accept {
        outcome,
        attempt,
        node,
        because: None,
        at_risk: false,
        reason: String::new(),
        at_ms: 1_900,
    };
    let accepted = Change::register(doc, &Key::Accept(range), &accept(Outcome::Done, 1, Some(node(2))));
    let (accepted, _) = one.append(&key(1), 2_000, &[accepted]);
    assert_eq!(one.job_row(JOB).expect("a row").ended_ms, Some(1_050));
    take(&mut third, &accepted);
    let missing = third.job(JOB).expect("known").unreported();
    assert_eq!(missing, [(range, 1, node(2))], "accepted, and the report has not come");
    take(&mut third, &ran);
    assert_eq!(
        (third.job(JOB).expect("known").unreported(), one.job(JOB).expect("known").unreported()),
        (vec![], vec![])
    );
    assert_eq!(one.written_ms(node(1), 4), Some(2_000));

    let other = JobId([6; 16]);
    let changes = [
        Change::register(DocId::job(other), &Key::Spec, &spec(&one, 1)),
        Change::register(DocId::job(other), &Key::Accept(range), &accept(Outcome::Cancelled, 0, None)),
    ];
    one.append(&key(1), 2_000, &changes);
    assert_eq!(one.job_row(other).expect("a row").ended_ms, Some(1_900));
}

#[test]
fn an_array_is_at_risk_when_the_result_of_any_of_its_tasks_is() {
    let (mut one, _) = mesh();
    let doc = DocId::job(JOB);
    let array = JobSpec { array: 2, ..spec(&one, 1) };
    one.append(&key(1), 1_000, &[Change::register(doc, &Key::Spec, &array)]);
    for (start, at_risk) in [(0, false), (1, true)] {
        let range = TaskRange { start, end: start + 1 };
        let (outcome, reason) = (Outcome::Failed, String::new());
        let accept = Accept { outcome, attempt: 0, node: None, because: None, at_risk, reason, at_ms: 1_900 };
        one.append(&key(1), 2_000, &[Change::register(doc, &Key::Accept(range), &accept)]);
        assert_eq!(one.job(JOB).expect("known").is_at_risk(), at_risk);
    }
}

#[test]
fn a_job_whose_claim_came_before_its_spec_is_listed() {
    let (mut one, bundles) = mesh();
    let mut two = replica_of(&one, &[&bundles[0], &bundles[1]]);
    let (doc, range) = (DocId::job(JOB), TaskRange { start: 0, end: 1 });
    let (submitted, _) = one.append(&key(1), 1_000, &[Change::register(doc, &Key::Spec, &spec(&one, 1))]);
    take(&mut two, &submitted);
    let (ran, _) = two.append(&key(2), 1_000, &[Change::register(doc, &Key::Run(1, range), &RunReport::default())]);
    let late = replica_of(&one, &[&bundles[0], &bundles[1], &ran, &submitted]);
    let listed = |replica: &Replica<MemoryShelf>| replica.shelf().scan_back(Table::JobsByTime, &[], 9);
    assert_eq!(listed(&late), listed(&two));
    assert_eq!(listed(&late).len(), 1);
    assert_eq!(late.state_hash(), two.state_hash());
}

#[test]
fn a_notebook_is_listed_and_rebuilt_from_the_feeds_that_count() {
    let (mut one, bundles) = mesh();
    let mut two = replica_of(&one, &[&bundles[0], &bundles[1]]);
    assert_eq!(one.notes(), []);
    for (replica, n, text) in [(&mut one, 1, "milk\n"), (&mut two, 2, "bread\n")] {
        let edit = Notebook::new(NOTE).edit(node(n), text, 1).expect("an edit").expect("a change");
        let (bundle, _) = replica.append(&key(n), 1_000, &[Change::notebook(DocId::note(NOTE), edit)]);
        drop(bundle);
    }
    let theirs = two.bundles(node(2), 1, 9);
    let ours = one.bundles(node(1), 3, 9);
    for (replica, wires) in [(&mut one, theirs), (&mut two, ours)] {
        for wire in wires {
            replica.ingest(Bundle::decode(wire).expect("sound"), 1_000);
        }
    }
    assert_eq!((one.notes(), one.state_hash()), (vec![NOTE], two.state_hash()));
    let text = |replica: &Replica<MemoryShelf>| {
        let changes = replica.note_changes(DocId::note(NOTE)).into_iter().map(|(author, _, bytes)| (author, bytes));
        rebuild(NOTE, changes).notebook.text()
    };
    assert_eq!(text(&one), text(&two));
    assert!(text(&one).contains("milk\n") && text(&one).contains("bread\n"));
}

#[test]
fn a_member_cannot_put_its_own_spec_under_the_id_of_anothers_job() {
    let (mut replica, _) = mesh();
    let nonce = [4; 16];
    let id = job_id_of_nonce(node(1), &nonce);
    let honest = JobSpec { nonce: Some(nonce.into()), ..spec(&replica, 1) };
    let thief = JobSpec { command: vec!["other".into()], created_ms: 0, ..spec(&replica, 2) };
    let copied = JobSpec { nonce: Some(nonce.into()), ..thief.clone() };
    for (theirs, first) in [(&thief, true), (&thief, false), (&copied, true), (&copied, false)] {
        let (mut replica, _) = mesh();
        let mut specs = [(1, &honest), (2, theirs)];
        if first {
            specs.reverse();
        }
        for (by, spec) in specs {
            replica.append(&key(by), 2_000, &[Change::register(DocId::job(id), &Key::Spec, spec)]);
        }
        let (submitter, counts) = replica.job(id).expect("known").spec().expect("a spec counts");
        assert_eq!((*submitter, &counts.command), (node(1), &honest.command));
    }
    assert!(replica.job(id).is_none());
}

#[test]
fn an_entry_that_another_brought_counts_by_the_roster_in_whatever_order_both_come() {
    let (mut one, bundles) = mesh();
    let mut two = replica_of(&one, &[&bundles[0], &bundles[1]]);
    // A third member writes an idea that only the second's feed carries.
    let invite = key(8);
    let id = InviteId(invite.verifying_key().to_bytes());
    let words = Invite { role: Role::Worker, expires_ms: 9_000, uses: 1, person: None };
    let admission = Admission::sign(one.mesh(), &key(3), "three", &invite, 1_000);
    let changes = [
        Change::register(DocId::ROSTER, &Key::Invite(id), &words),
        Change::register(DocId::ROSTER, &Key::Member(node(3)), &admission),
    ];
    let (admitted, _) = one.append(&key(1), 1_000, &changes);
    let person = one.roster().person(&node(3)).expect("a member");
    let idea = Signed::sign(&key(3), person, 1_000, [1; 16], Content::new(Kind::Idea, "theirs")).expect("good");
    let forged =
        Signed::sign(&key(4), person, 1_000, [2; 16], Content::new(Kind::Idea, "in their name")).expect("good");
    let (carried, _) = two.append(&key(2), 1_000, &[Change::entry(&idea), Change::entry(&forged)]);
    let cut = Revocation { last_seq: 0, last_hash: crdt::ids::BundleHash::ZERO, reason: String::new(), recovery: None };
    let (revoked, _) = one.append(&key(1), 1_000, &[Change::register(DocId::ROSTER, &Key::Revoke(node(3)), &cut)]);
    let shown = |replica: &Replica<MemoryShelf>| {
        replica.subjects(None, 9).into_iter().map(|shown| shown.title).collect::<Vec<_>>()
    };
    let [a, b] = [&bundles[0], &bundles[1]];
    let before = replica_of(&one, &[a, b, &admitted, &carried]);
    let after = replica_of(&one, &[a, b, &carried, &admitted]);
    assert_eq!((shown(&before), shown(&after)), (vec!["theirs".to_owned()], vec!["theirs".to_owned()]));
    assert_eq!(before.state_hash(), after.state_hash());
    let orders = [[&admitted, &revoked, &carried], [&carried, &admitted, &revoked], [&admitted, &carried, &revoked]];
    let gone: Vec<_> = orders.iter().map(|[x, y, z]| replica_of(&one, &[a, b, x, y, z])).collect();
    for replica in &gone {
        assert_eq!(shown(replica), Vec::<String>::new());
        assert_eq!(replica.state_hash(), gone[0].state_hash());
    }
    // An admin's word is enough, for whoever it is.
    let mut one = before;
    one.append(&key(1), 1_000, &[Change::entry(&forged)]);
    assert_eq!(shown(&one).len(), 2);
}

#[test]
fn no_delegation_covers_an_admin_s_acts() {
    let (mut one, bundles) = mesh();
    let mut two = replica_of(&one, &[&bundles[0], &bundles[1]]);
    let person = |by| one.roster().person(&node(by)).expect("a member");
    let (admin, worker) = (person(1), person(2));
    let idea = Signed::sign(&key(2), worker, 1_000, [1; 16], Content::new(Kind::Idea, "theirs")).expect("good");
    let (written, _) = two.append(&key(2), 1_000, &[Change::entry(&idea)]);
    take(&mut one, &written);
    let delegation = Delegation { key: node(7), name: "clerk".into(), kinds: vec![Kind::Decision], until_ms: 9_000 };
    let given = Content { delegation: Some(delegation), ..Content::new(Kind::KeyDelegation, "clerk") };
    let mandate = Signed::sign(&key(1), admin, 1_000, [2; 16], given).expect("good");
    let decision = Content { verdict: Some(Verdict::Accepted), ..Content::about(Kind::Decision, idea.id) };
    let of_program = Signed::sign_under(&key(7), &mandate, 1_000, [3; 16], decision.clone()).expect("covered");
    one.append(&key(1), 1_000, &[Change::entry(&mandate), Change::entry(&of_program)]);
    let status = |replica: &Replica<MemoryShelf>| replica.subject(idea.document()).map(|subject| subject.status);
    assert_eq!(status(&one), Some(Status::Open));
    let own = Signed::sign(&key(1), admin, 1_000, [4; 16], decision).expect("good");
    one.append(&key(1), 1_000, &[Change::entry(&own)]);
    assert_eq!(status(&one), Some(Status::Accepted));
}

#[test]
fn as_many_bundles_are_read_as_fit_and_one_at_least() {
    let (mut one, _) = mesh();
    for _ in 0..20 {
        one.append(&key(1), 1_000, &[Change::register(DocId::job(JOB), &Key::Spec, &spec(&one, 1))]);
    }
    let all = one.bundles(node(1), 1, 99);
    let bytes = |count: usize| all[..count].iter().map(bytes::Bytes::len).sum::<usize>();
    let fit = |limit, bytes| one.bundles_within(node(1), 1, limit, bytes);
    assert_eq!(fit(99, usize::MAX), all);
    assert_eq!(fit(99, 0), all[..1]);
    for count in 1..all.len() {
        assert_eq!(fit(99, bytes(count)), all[..count]);
        assert_eq!(fit(99, bytes(count + 1) - 1), all[..count]);
        assert_eq!(fit(count, usize::MAX), all[..count]);
    }
}

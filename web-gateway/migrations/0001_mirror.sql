-- The mirror of a V6 mesh, for those who write SQL. It can be dropped and filled again at any time: the mesh is the truth.
create schema if not exists v6;

create table v6.members (
    node text primary key,
    name text not null,
    role text not null,
    person text,
    joined timestamptz,
    revoked boolean not null,
    reason text
);
comment on table v6.members is 'Who belongs to the mesh, revoked members too.';
comment on column v6.members.node is 'Whole id of the device.';
comment on column v6.members.name is 'Name that it gave itself.';
comment on column v6.members.role is 'admin, submitter, worker, observer or gateway.';
comment on column v6.members.person is 'The person whose device it is.';
comment on column v6.members.joined is 'When it was admitted.';
comment on column v6.members.revoked is 'Whether it was shut out.';
comment on column v6.members.reason is 'Why it does not count at the moment.';

create table v6.nodes (
    node text primary key,
    name text not null,
    online boolean not null,
    labels jsonb not null,
    slots bigint not null,
    price_micros_per_hour bigint not null,
    region text,
    os text,
    last_seen timestamptz
);
comment on table v6.nodes is 'What each machine offers, as this gateway hears it.';
comment on column v6.nodes.node is 'Whole id.';
comment on column v6.nodes.name is 'Its name.';
comment on column v6.nodes.online is 'Whether the gateway hears it.';
comment on column v6.nodes.labels is 'Labels of its offer, a list.';
comment on column v6.nodes.slots is 'Slots of its offer.';
comment on column v6.nodes.price_micros_per_hour is 'Price of a slot.';
comment on column v6.nodes.region is 'Its region.';
comment on column v6.nodes.os is 'Its operating system.';
comment on column v6.nodes.last_seen is 'When it was last heard.';

create table v6.jobs (
    id text primary key,
    state text not null,
    submitter text not null,
    owner text,
    trace text not null,
    command jsonb not null,
    created timestamptz not null,
    ended timestamptz,
    cost_micros bigint not null,
    name text,
    idea text,
    person text,
    tasks bigint not null
);
comment on table v6.jobs is 'Work that was asked for.';
comment on column v6.jobs.id is 'As the command line prints it.';
comment on column v6.jobs.state is 'queued, claimed, running, done, failed, cancelled or skipped.';
comment on column v6.jobs.submitter is 'Node that submitted it.';
comment on column v6.jobs.owner is 'Node that runs it or ran it last.';
comment on column v6.jobs.trace is 'Trace that it belongs to.';
comment on column v6.jobs.command is 'Program and arguments, a list.';
comment on column v6.jobs.created is 'When its submitter accepted it.';
comment on column v6.jobs.ended is 'When its last task ended.';
comment on column v6.jobs.cost_micros is 'What its attempts cost, in millionths.';
comment on column v6.jobs.name is 'Name that its submitter gave it.';
comment on column v6.jobs.idea is 'The idea that it serves.';
comment on column v6.jobs.person is 'Who submitted it.';
comment on column v6.jobs.tasks is 'Number of its tasks; the first 10,000 are in v6.tasks.';

create table v6.tasks (
    job_id text not null references v6.jobs on delete cascade,
    index bigint not null,
    state text not null,
    accepted_attempt bigint,
    primary key (job_id, index)
);
comment on table v6.tasks is 'The elements of jobs; a job that is no array has one.';
comment on column v6.tasks.job_id is 'The job.';
comment on column v6.tasks.index is 'From 0.';
comment on column v6.tasks.state is 'As of jobs.';
comment on column v6.tasks.accepted_attempt is 'The attempt whose result counts.';

create table v6.attempts (
    job_id text not null references v6.jobs on delete cascade,
    index bigint not null,
    attempt bigint not null,
    node_id text not null,
    state text not null,
    started timestamptz,
    ended timestamptz,
    exit bigint,
    cost_micros bigint,
    reason text,
    primary key (job_id, index, attempt, node_id)
);
comment on table v6.attempts is 'Executions of tasks.';
comment on column v6.attempts.job_id is 'The job.';
comment on column v6.attempts.index is 'The task.';
comment on column v6.attempts.attempt is 'From 1.';
comment on column v6.attempts.node_id is 'Node that claimed it.';
comment on column v6.attempts.state is 'claimed, running, done, failed, cancelled or lost.';
comment on column v6.attempts.started is 'Just before the process began.';
comment on column v6.attempts.ended is 'When it had ended.';
comment on column v6.attempts.exit is 'Exit code; 128 + N after signal N.';
comment on column v6.attempts.cost_micros is 'What it cost, in millionths.';
comment on column v6.attempts.reason is 'Why it did not end with an exit code of its own.';
create index attempts_by_node on v6.attempts (node_id, started);

create table v6.artifacts (
    job_id text not null references v6.jobs on delete cascade,
    index bigint not null,
    attempt bigint not null,
    node_id text not null,
    path text not null,
    blob text not null,
    size bigint not null
);
comment on table v6.artifacts is 'Files that attempts left.';
comment on column v6.artifacts.job_id is 'The job.';
comment on column v6.artifacts.index is 'The task.';
comment on column v6.artifacts.attempt is 'The attempt.';
comment on column v6.artifacts.node_id is 'Node that ran it.';
comment on column v6.artifacts.path is 'In the directory of the task.';
comment on column v6.artifacts.blob is 'Hash of its bytes.';
comment on column v6.artifacts.size is 'In bytes.';
create index artifacts_by_job on v6.artifacts (job_id);

create table v6.ideas (
    id text primary key,
    title text not null,
    body text not null,
    author text not null,
    owner text not null,
    status text not null,
    created timestamptz not null,
    kind text not null,
    tags jsonb not null
);
comment on table v6.ideas is 'Ideas and other subjects of the ledger.';
comment on column v6.ideas.id is 'Hash of its bytes.';
comment on column v6.ideas.title is 'One line.';
comment on column v6.ideas.body is 'CommonMark.';
comment on column v6.ideas.author is 'Node that signed it.';
comment on column v6.ideas.owner is 'Person whose it is.';
comment on column v6.ideas.status is 'open, accepted, rejected, deferred, done or retracted.';
comment on column v6.ideas.created is 'When it was written.';
comment on column v6.ideas.kind is 'idea, observation, issue, …';
comment on column v6.ideas.tags is 'Words to find it by, a list.';

create table v6.links (
    entry text primary key,
    from_id text not null,
    relation text not null,
    to_id text not null,
    person text not null,
    score bigint,
    method text,
    accepted boolean not null
);
comment on table v6.links is 'How ideas hang together.';
comment on column v6.links.entry is 'The entry of the link.';
comment on column v6.links.from_id is 'The idea that it is a link of.';
comment on column v6.links.relation is 'broader, duplicates, supports, …';
comment on column v6.links.to_id is 'An idea, job:ID or blob:HASH.';
comment on column v6.links.person is 'Who made it.';
comment on column v6.links.score is 'How sure it is, in thousandths, where it was found and not said.';
comment on column v6.links.method is 'How it was found.';
comment on column v6.links.accepted is 'Whether it counts.';
create index links_by_idea on v6.links (from_id);

create table v6.outcomes (
    entry text primary key,
    idea text not null,
    job text not null,
    state text not null,
    exit bigint,
    tasks bigint not null,
    done bigint not null,
    duration_ms bigint not null,
    cost_micros bigint not null,
    created timestamptz not null
);
comment on table v6.outcomes is 'What came of jobs that served ideas, one per accepted result.';
comment on column v6.outcomes.entry is 'The entry of the outcome.';
comment on column v6.outcomes.idea is 'The idea.';
comment on column v6.outcomes.job is 'The job.';
comment on column v6.outcomes.state is 'done, failed, cancelled or skipped.';
comment on column v6.outcomes.exit is 'Exit code.';
comment on column v6.outcomes.tasks is 'Tasks in all.';
comment on column v6.outcomes.done is 'Tasks that are done.';
comment on column v6.outcomes.duration_ms is 'Running time of all accepted attempts.';
comment on column v6.outcomes.cost_micros is 'What they cost, in millionths.';
comment on column v6.outcomes.created is 'When the result was accepted.';
create index outcomes_by_idea on v6.outcomes (idea);

create table v6.bundles (
    author text not null,
    seq bigint not null,
    hash text not null,
    wire bytea not null,
    primary key (author, seq)
);
comment on table v6.bundles is 'What members wrote, signed, as it travels.';
comment on column v6.bundles.author is 'Node that signed it.';
comment on column v6.bundles.seq is 'Its place in the feed of the author, from 1.';
comment on column v6.bundles.hash is 'Its name, which the next one names.';
comment on column v6.bundles.wire is 'The whole bundle.';

create table v6.events (
    author text not null,
    seq bigint not null,
    n bigint not null,
    at timestamptz not null,
    kind text not null,
    id text not null,
    primary key (author, seq, n)
);
comment on table v6.events is 'What was changed, in the order in which each member did it.';
comment on column v6.events.author is 'Node that changed it.';
comment on column v6.events.seq is 'Bundle that brought it.';
comment on column v6.events.n is 'Its place in the bundle.';
comment on column v6.events.at is 'When, by the clock of the author.';
comment on column v6.events.kind is 'roster, job, idea, note or feed.';
comment on column v6.events.id is 'Which job, idea or document.';

create table v6.checkpoints (
    author text primary key,
    seq bigint not null,
    hash text not null
);
comment on table v6.checkpoints is 'Up to where each feed is mirrored; written with what it brought.';
comment on column v6.checkpoints.author is 'Whose feed.';
comment on column v6.checkpoints.seq is 'Last bundle that is here.';
comment on column v6.checkpoints.hash is 'Its name.';

create view v6.jobs_per_day as
    select date_trunc('day', created) as day, count(*) as jobs, count(*) filter (where state = 'done') as done,
           count(*) filter (where state = 'failed') as failed
    from v6.jobs group by 1;
comment on view v6.jobs_per_day is 'Jobs by the day on which they were submitted.';

create view v6.cost_per_idea as
    select ideas.id, ideas.title, count(outcomes.entry) as outcomes, coalesce(sum(outcomes.cost_micros), 0) as cost_micros
    from v6.ideas left join v6.outcomes on outcomes.idea = ideas.id group by ideas.id, ideas.title;
comment on view v6.cost_per_idea is 'What the jobs that served an idea cost.';

create view v6.node_utilisation as
    select node_id, date_trunc('hour', started) as hour, count(*) as attempts,
           sum(extract(epoch from coalesce(ended, now()) - started)) as busy_seconds
    from v6.attempts where started is not null group by 1, 2;
comment on view v6.node_utilisation is 'How long each node was at work, by the hour in which an attempt began.';

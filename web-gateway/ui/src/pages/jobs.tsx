// All jobs, newest first: filtered by what stands in the address, as many as there are.

import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, useState } from "react";

import type { Schemas } from "../api/client";
import { jobsQuery, newestJobsQuery } from "../api/queries";
import { useFormat, useNow } from "../format";
import { useT } from "../i18n";
import { useRowKeys } from "../keys";
import { Page } from "../shell";
import { Button, css as parts, Empty, here, Loading, Name, Problem } from "../ui";
import { SearchBox } from "../ui/search-box";
import { type JobState, StateMark, stateWord } from "../ui/state";
import { jobTitle, useMachines } from "./home";
import css from "./jobs.module.css";

const route = getRouteApi("/jobs");

const STATES: JobState[] = ["running", "queued", "claimed", "done", "failed", "cancelled", "skipped"];
const ROW_PX = 44;
/** Rows beyond the window that are drawn already. */
const OVERSCAN = 12;

export function Jobs() {
  const t = useT();
  const format = useFormat();
  const search = route.useSearch();
  const queries = useQueryClient();
  const list = useInfiniteQuery(jobsQuery(search));
  const rows = list.data?.pages.flatMap((page) => page.rows) ?? [];
  const { data: newest } = useQuery(newestJobsQuery(search));
  const known = new Set(rows.slice(0, 400).map((row) => row.id));
  const fresh = list.data ? (newest ?? []).filter((row) => !known.has(row.id) && row.created >= (rows[0]?.created ?? "")) : [];
  const show = () => void queries.resetQueries({ queryKey: jobsQuery(search).queryKey });

  return (
    <Page title={t("nav.jobs")} isBusy={list.isPending}>
      <Filters />
      {fresh.length > 0 && (
        <div>
          <Button onPress={show}>{t("jobs.new", { count: fresh.length, shown: format.number(fresh.length) })}</Button>
        </div>
      )}
      {list.error && <Problem error={list.error} again={() => void list.refetch()} />}
      {list.isPending && <Loading />}
      {list.data && rows.length === 0 && (
        <Empty title={Object.keys(search).length > 0 ? t("jobs.noneFit") : t("jobs.none")}>
          {Object.keys(search).length > 0 ? <Link to="/jobs">{t("jobs.clear")}</Link> : <Link to="/jobs/new">{t("nav.new")}</Link>}
        </Empty>
      )}
      {rows.length > 0 && <Rows rows={rows} hasMore={list.hasNextPage} more={() => !list.isFetchingNextPage && void list.fetchNextPage()} />}
    </Page>
  );
}

function Filters() {
  const t = useT();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const change = (q: string) => void navigate({ search: ({ q: _, ...rest }) => (q ? { ...rest, q } : rest), replace: true });
  return (
    <SearchBox label={t("jobs.search")} words={search.q ?? ""} onWords={change}>
      <nav className={css["states"]} aria-label={t("jobs.states")}>
        <Link to="/jobs" search={({ state: _, ...rest }) => rest} {...here(!search.state)}>
          {t("jobs.all")}
        </Link>
        {STATES.map((state) => (
          <Link
            key={state}
            to="/jobs"
            search={(rest) => ({ ...rest, state })}
            {...here(search.state === state)}
          >
            {t(stateWord(state))}
          </Link>
        ))}
      </nav>
    </SearchBox>
  );
}

function Rows({ rows, hasMore, more }: { rows: Schemas["JobRow"][]; hasMore: boolean; more: () => void }) {
  const t = useT();
  const list = useRef<HTMLUListElement>(null);
  const [top, setTop] = useState(0);
  useEffect(() => setTop(list.current?.offsetTop ?? 0), []);
  useRowKeys(list);
  const virtual = useWindowVirtualizer({ count: rows.length, estimateSize: () => ROW_PX, overscan: OVERSCAN, scrollMargin: top });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (hasMore && last >= rows.length - OVERSCAN) more();
  }, [hasMore, last, rows.length, more]);
  return (
    <div className={parts["sheet"]}>
      <ul className={css["list"]} ref={list} style={{ blockSize: virtual.getTotalSize() }} aria-label={t("nav.jobs")}>
        {items.map((item) => {
          const row = rows[item.index];
          return (
            row && (
              <li key={row.id} style={{ transform: `translateY(${item.start - top}px)` }} aria-setsize={hasMore ? -1 : rows.length} aria-posinset={item.index + 1}>
                <JobLine job={row} />
              </li>
            )
          );
        })}
      </ul>
    </div>
  );
}

function JobLine({ job }: { job: Schemas["JobRow"] }) {
  const t = useT();
  const format = useFormat();
  const now = useNow();
  const machines = useMachines();
  const owner = machines.find((one) => one.node === job.owner)?.name;
  return (
    <div className={css["row"]}>
      <StateMark state={job.state} />
      <Link to="/jobs/$id" params={{ id: job.id }} className={css["title"]} data-row="">
        {job.name && (
          <>
            <Name>{job.name}</Name>
            {" · "}
          </>
        )}
        <Name>{jobTitle({ ...job, name: null })}</Name>
      </Link>
      <small>{t(stateWord(job.state))}</small>
      <small>{owner && <Name>{owner}</Name>}</small>
      <small>{job.tasks > 1 && t("job.tasksDone", { done: format.number(job.done), tasks: format.number(job.tasks) })}</small>
      <small>
        <time dateTime={job.created} title={format.time(job.created)}>
          {format.ago(job.created, now)}
        </time>
      </small>
    </div>
  );
}

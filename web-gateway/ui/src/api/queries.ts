// What pages ask, each under one key, so that one event makes it old everywhere.

import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";

import type { IdeasSearch, JobsSearch } from "../router";
import { read, readPage, type Schemas, withQuery } from "./client";

export const statusQuery = queryOptions({
  queryKey: ["status"],
  queryFn: ({ signal }) => read<Schemas["StatusView"]>("/v1/status", signal),
});

export const peersQuery = queryOptions({
  queryKey: ["peers"],
  queryFn: ({ signal }) => read<Schemas["PeerView"][]>("/v1/peers", signal),
  refetchInterval: 10_000,
});

/** Rows that one reading brings. */
const PAGE = 200;
/** Rows that are looked through for new ones. */
const NEWEST = 50;

/** The list that somebody looks at: it is not read again by itself, for rows must not move under the pointer. */
export const jobsQuery = (search: JobsSearch) =>
  infiniteQueryOptions({
    queryKey: ["joblist", search],
    staleTime: Infinity,
    queryFn: ({ pageParam, signal }) =>
      readPage<Schemas["JobRow"]>(withQuery("/v1/jobs", { ...search, limit: PAGE, cursor: pageParam }), signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
  });

/** The newest rows of the same list, which tell that there is something new. */
export const newestJobsQuery = (search: JobsSearch) =>
  queryOptions({
    queryKey: ["jobs", "newest", search],
    queryFn: ({ signal }) => read<Schemas["JobRow"][]>(withQuery("/v1/jobs", { ...search, limit: NEWEST }), signal),
  });

export const someJobsQuery = (state: Schemas["JobState"] | undefined, limit: number) =>
  queryOptions({
    queryKey: ["jobs", "some", state ?? "all", limit],
    queryFn: ({ signal }) => read<Schemas["JobRow"][]>(withQuery("/v1/jobs", { state, limit }), signal),
  });

export const jobQuery = (id: string) =>
  queryOptions({
    queryKey: ["job", id],
    queryFn: ({ signal }) => read<Schemas["JobView"]>(withQuery(`/v1/jobs/${id}`, { tasks_max: 200 }), signal),
  });

export const explainQuery = (id: string, state: string) =>
  queryOptions({
    queryKey: ["job", id, "explain", state],
    queryFn: ({ signal }) => read<Schemas["Explain"]>(`/v1/jobs/${id}/explain`, signal),
  });

export const traceQuery = (id: string) =>
  queryOptions({
    queryKey: ["job", id, "trace"],
    queryFn: ({ signal }) => read<Schemas["TraceView"]>(`/v1/traces/${id}`, signal),
  });

export const doctorQuery = queryOptions({
  queryKey: ["doctor"],
  queryFn: ({ signal }) => read<Schemas["Finding"][]>("/v1/doctor", signal),
  staleTime: 60_000,
});

export const ideasQuery = (search: IdeasSearch) =>
  infiniteQueryOptions({
    queryKey: ["ideas", search],
    queryFn: ({ pageParam, signal }) => {
      const { q, status, kind, tag } = search;
      return q
        ? readPage<Schemas["IdeaFound"]>(withQuery("/v1/ideas/search", { q, status, kind, tag, limit: 50, cursor: pageParam }), signal)
        : readPage<Schemas["IdeaRow"] & Partial<Schemas["IdeaFound"]>>(
            withQuery("/v1/ideas", { limit: 1000, cursor: pageParam, all: status === "retracted" }),
            signal,
          );
    },
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
  });

export const topIdeasQuery = (limit: number) =>
  queryOptions({
    queryKey: ["ideas", "top", limit],
    queryFn: ({ signal }) => read<Schemas["IdeaRanked"][]>(withQuery("/v1/ideas/top", { limit }), signal),
  });

export const ideaQuery = (id: string) =>
  queryOptions({ queryKey: ["idea", id], queryFn: ({ signal }) => read<Schemas["IdeaView"]>(`/v1/ideas/${id}`, signal) });

export const ideaGraphQuery = (id: string) =>
  queryOptions({
    queryKey: ["idea", id, "graph"],
    queryFn: ({ signal }) => read<Schemas["IdeaGraph"]>(withQuery("/v1/ideas/graph", { idea: id, depth: 1 }), signal),
  });

export const noteQuery = (id: string) =>
  queryOptions({ queryKey: ["note", id], queryFn: ({ signal }) => read<Schemas["NoteView"]>(`/v1/notes/${id}`, signal) });

export const membersQuery = queryOptions({
  queryKey: ["members"],
  queryFn: ({ signal }) => read<Schemas["MemberRow"][]>("/v1/members", signal),
});

export const invitesQuery = queryOptions({
  queryKey: ["invites"],
  queryFn: ({ signal }) => read<Schemas["InviteRow"][]>("/v1/invites", signal),
});

export const policiesQuery = queryOptions({
  queryKey: ["policies"],
  queryFn: ({ signal }) => read<Schemas["PolicyView"][]>("/v1/policies", signal),
});

export const feedsQuery = queryOptions({
  queryKey: ["feeds"],
  queryFn: ({ signal }) => read<Schemas["FeedView"][]>("/v1/feeds", signal),
});

export const blobsQuery = infiniteQueryOptions({
  queryKey: ["blobs"],
  queryFn: ({ pageParam, signal }) => readPage<Schemas["BlobRow"]>(withQuery("/v1/blobs", { limit: PAGE, cursor: pageParam }), signal),
  initialPageParam: "",
  getNextPageParam: (page) => page.next ?? undefined,
});

export const waitingQuery = queryOptions({
  queryKey: ["waiting"],
  queryFn: ({ signal }) => read<Schemas["WaitingView"]>("/v1/jobs/waiting", signal),
});

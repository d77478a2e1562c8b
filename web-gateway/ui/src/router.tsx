// Paths, and what a list shows, which is in the address too.

import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";

import { NotFound } from "./pages/not-found";
import { Shell } from "./shell";
import type { JobState } from "./ui/state";

const root = createRootRouteWithContext<{ queries: QueryClient }>()({ component: Shell, notFoundComponent: NotFound });

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : typeof value === "number" ? String(value) : undefined;

/** Only what says something: an empty filter is not in the address. */
function said<T extends Record<string, unknown>>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}

export type JobsSearch = { state?: JobState; q?: string; label?: string };
export type JobSearch = { line?: string; tab?: string; task?: string };
export type IdeasSearch = { q?: string; status?: string; kind?: string; tag?: string; view?: string };
export type NewJobSearch = { like?: string; idea?: string };

const home = createRoute({
  getParentRoute: () => root,
  path: "/",
  component: lazyRouteComponent(() => import("./pages/home"), "Home"),
});
const jobs = createRoute({
  getParentRoute: () => root,
  path: "/jobs",
  validateSearch: (search: Record<string, unknown>): JobsSearch =>
    said({ state: text(search["state"]) as JobState | undefined, q: text(search["q"]), label: text(search["label"]) }) as JobsSearch,
  component: lazyRouteComponent(() => import("./pages/jobs"), "Jobs"),
});
const newJob = createRoute({
  getParentRoute: () => root,
  path: "/jobs/new",
  validateSearch: (search: Record<string, unknown>): NewJobSearch =>
    said({ like: text(search["like"]), idea: text(search["idea"]) }) as NewJobSearch,
  component: lazyRouteComponent(() => import("./pages/new-job"), "NewJob"),
});
const job = createRoute({
  getParentRoute: () => root,
  path: "/jobs/$id",
  validateSearch: (search: Record<string, unknown>): JobSearch =>
    said({ line: text(search["line"]), tab: text(search["tab"]), task: text(search["task"]) }) as JobSearch,
  component: lazyRouteComponent(() => import("./pages/job"), "Job"),
});
const ideas = createRoute({
  getParentRoute: () => root,
  path: "/ideas",
  validateSearch: (search: Record<string, unknown>): IdeasSearch =>
    said({
      q: text(search["q"]),
      status: text(search["status"]),
      kind: text(search["kind"]),
      tag: text(search["tag"]),
      view: text(search["view"]),
    }) as IdeasSearch,
  component: lazyRouteComponent(() => import("./pages/ideas"), "Ideas"),
});
const idea = createRoute({
  getParentRoute: () => root,
  path: "/ideas/$id",
  component: lazyRouteComponent(() => import("./pages/idea"), "Idea"),
});
const nodes = createRoute({
  getParentRoute: () => root,
  path: "/nodes",
  component: lazyRouteComponent(() => import("./pages/nodes"), "Nodes"),
});
const node = createRoute({
  getParentRoute: () => root,
  path: "/nodes/$id",
  component: lazyRouteComponent(() => import("./pages/node"), "Node"),
});
const mesh = createRoute({
  getParentRoute: () => root,
  path: "/mesh",
  component: lazyRouteComponent(() => import("./pages/mesh"), "Mesh"),
});
const storage = createRoute({
  getParentRoute: () => root,
  path: "/storage",
  component: lazyRouteComponent(() => import("./pages/storage"), "Storage"),
});

const tree = root.addChildren([home, jobs, newJob, job, ideas, idea, nodes, node, mesh, storage]);

export const makeRouter = (queries: QueryClient) =>
  createRouter({ routeTree: tree, context: { queries }, defaultPreload: "intent", scrollRestoration: true });

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}

// What this machine keeps: blobs, what pins them, who else holds them, how full it is.

import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { type Schemas, send } from "../api/client";
import { blobsQuery, statusQuery } from "../api/queries";
import { useFormat } from "../format";
import { useT } from "../i18n";
import { Page } from "../shell";
import { Button, classes, css as parts, Dialog, Empty, Facts, Id, Loading, Name, Problem } from "../ui";

export function Storage() {
  const t = useT();
  const format = useFormat();
  const queries = useQueryClient();
  const { data: status } = useQuery(statusQuery);
  const blobs = useInfiniteQuery(blobsQuery);
  const rows = blobs.data?.pages.flatMap((page) => page.rows) ?? [];
  const [isAsking, setAsking] = useState(false);
  const gc = useMutation({
    mutationFn: () => send<Schemas["GcReport"]>("POST", "/v1/blobs/gc"),
    onSuccess: () => {
      void queries.invalidateQueries({ queryKey: ["blobs"] });
      void queries.invalidateQueries({ queryKey: ["status"] });
    },
  });
  const quota = status?.blob_quota_bytes;
  return (
    <Page
      title={t("nav.storage")}
      isBusy={blobs.isPending}
      actions={
        <Button onPress={() => setAsking(true)} isDisabled={gc.isPending}>
          {t("storage.gc")}
        </Button>
      }
    >
      {status && (
        <Facts
          facts={[
            [t("storage.held"), format.bytes(status.blob_bytes ?? 0)],
            quota !== null && quota !== undefined && [t("storage.quota"), format.bytes(quota)],
            [t("mesh.history"), format.bytes(status.history_bytes ?? 0)],
          ]}
        />
      )}
      {quota !== null && quota !== undefined && status && (
        <meter min={0} max={quota} value={status.blob_bytes ?? 0} aria-label={t("storage.held")} style={{ inlineSize: "100%" }} />
      )}
      {gc.error && <Problem error={gc.error} />}
      {gc.data && (
        <p role="status">
          {t("storage.freed", { blobs: format.number(gc.data.blobs_dropped), bytes: format.bytes(gc.data.bytes_freed) })}
        </p>
      )}
      {blobs.error && <Problem error={blobs.error} again={() => void blobs.refetch()} />}
      {blobs.isPending && <Loading />}
      {blobs.data && rows.length === 0 && <Empty title={t("storage.empty")} />}
      {rows.length > 0 && (
        <div className={classes(parts["sheet"], parts["scroll"])} tabIndex={0} role="group" aria-label={t("storage.blobs")}>
          <table className={parts["table"]}>
            <thead>
              <tr>
                <th>{t("storage.blob")}</th>
                <th>{t("storage.size")}</th>
                <th>{t("storage.pinned")}</th>
                <th>{t("storage.holders")}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.blob}>
                  <td>
                    <a href={`/v1/blobs/${row.blob}`} download={row.blob.slice(0, 16)}>
                      <Id title={row.blob}>{row.blob.slice(0, 16)}</Id>
                    </a>
                  </td>
                  <td>{format.bytes(row.size)}</td>
                  <td>
                    <Name>{row.pinned_by.join(", ")}</Name>
                  </td>
                  <td>{format.number((row.holders ?? []).length)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {blobs.hasNextPage && (
        <div>
          <Button onPress={() => void blobs.fetchNextPage()} isDisabled={blobs.isFetchingNextPage}>
            {t("ideas.more")}
          </Button>
        </div>
      )}
      {isAsking && (
        <Dialog title={t("storage.gcAsk")} onClose={() => setAsking(false)}>
          <p>{t("storage.gcWhat")}</p>
          <div className={parts["actions"]}>
            <Button
              look="main"
              autoFocus
              onPress={() => {
                setAsking(false);
                gc.mutate();
              }}
            >
              {t("storage.gc")}
            </Button>
            <Button onPress={() => setAsking(false)}>{t("ideas.cancel")}</Button>
          </div>
        </Dialog>
      )}
    </Page>
  );
}

import { Link } from "@tanstack/react-router";

import { useT } from "../i18n";
import { Page } from "../shell";
import { Empty } from "../ui";

export function NotFound() {
  const t = useT();
  return (
    <Page title={t("notFound.title")}>
      <Empty title={t("notFound.text")}>
        <Link to="/">{t("nav.home")}</Link>
      </Empty>
    </Page>
  );
}

import { type MessageId, useT } from "./i18n";
import { css, Dialog } from "./ui";

const KEYS: [string, MessageId][] = [
  ["Ctrl K", "keys.find"],
  ["/", "keys.filter"],
  ["j  k", "keys.rows"],
  ["Enter", "keys.open"],
  ["c", "keys.new"],
  ["g h", "nav.home"],
  ["g j", "nav.jobs"],
  ["g i", "nav.ideas"],
  ["g n", "nav.nodes"],
  ["g m", "nav.mesh"],
  ["g s", "nav.storage"],
  ["?", "keys.help"],
];

export default function KeysHelp({ onClose }: { onClose: () => void }) {
  const t = useT();
  return (
    <Dialog title={t("keys.title")} onClose={onClose}>
      <table className={css["table"]}>
        <tbody>
          {KEYS.map(([keys, id]) => (
            <tr key={keys}>
              <th scope="row">
                <kbd dir="ltr">{keys}</kbd>
              </th>
              <td>{t(id)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Dialog>
  );
}

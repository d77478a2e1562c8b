import qrcode from "qrcode-generator";

/** Lines and columns of quiet ground around the code, as ISO/IEC 18004 wants them. */
const QUIET = 4;

export default function Qr({ text, label }: { text: string; label: string }) {
  const code = qrcode(0, "L");
  code.addData(text);
  code.make();
  const size = code.getModuleCount();
  const dark: string[] = [];
  for (let row = 0; row < size; row += 1)
    for (let column = 0; column < size; column += 1)
      if (code.isDark(row, column)) dark.push(`M${column + QUIET} ${row + QUIET}h1v1h-1z`);
  const whole = size + 2 * QUIET;
  return (
    <svg viewBox={`0 0 ${whole} ${whole}`} role="img" aria-label={label} style={{ inlineSize: "min(280px, 100%)", background: "#fff" }} shapeRendering="crispEdges">
      <path d={dark.join("")} fill="#000" />
    </svg>
  );
}

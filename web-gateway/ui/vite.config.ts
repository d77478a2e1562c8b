import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The development server hands everything but the pages to a node: V6_API=http://127.0.0.1:PORT npm run dev
export default defineConfig({
  plugins: [react()],
  build: { target: "es2023", assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false },
  test: { include: ["src/**/*.test.ts"] },
  server: { proxy: { "/v1": process.env["V6_API"] ?? "http://127.0.0.1:8000", "/open": process.env["V6_API"] ?? "http://127.0.0.1:8000" } },
});

#!/usr/bin/env bash
# Three nodes on this machine, one of them a gateway: a real job across, then a worker is killed and its job goes on elsewhere;
# ideas in two languages, jobs that run, and the dashboard.
set -euo pipefail
v6=$(realpath "${1:-target/release/v6}")
dir=$(mktemp -d)
declare -A pid
clean() {
  for name in "${!pid[@]}"; do kill "${pid[$name]}" 2>/dev/null || true; done
  for name in "${!pid[@]}"; do wait "${pid[$name]}" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap clean EXIT
trap 'exit 0' INT TERM
say() { printf '\n== %s\n' "$*"; }
field() { python3 -c 'import json,sys; d=json.load(sys.stdin)
for k in sys.argv[1:]: d=d[int(k)] if k.lstrip("-").isdigit() else d[k]
print(d)' "$@"; }
up() {
  local name=$1 command=up; shift
  [ "$name" = alpha ] && command=gateway
  mkdir -p "$dir/$name"
  "$v6" "$command" --data-dir "$dir/$name" --name "$name" --api 127.0.0.1:0 --no-mdns --listen /ip4/127.0.0.1/tcp/0 --json "$@" \
    >"$dir/$name.ready" 2>"$dir/$name.log" &
  pid[$name]=$!
  for _ in $(seq 150); do grep -q '"ready"' "$dir/$name.ready" && break; sleep 0.1; done
  grep -q '"ready"' "$dir/$name.ready" || { cat "$dir/$name.log" >&2; exit 1; }
  echo "$name: node $(field node <"$dir/$name.ready" | cut -c1-8), API $(field api <"$dir/$name.ready")"
}
on() { "$v6" "$@" --data-dir "$dir/alpha"; }

say "alpha founds a mesh; beta and gamma join it by a ticket"
up alpha --slots 0
ticket=$(on invite --uses 2 --json | field ticket)
up beta --slots 1 --join "$ticket"
up gamma --slots 1 --join "$ticket"
for _ in $(seq 100); do [ "$(on peers --json | python3 -c 'import json,sys; print(sum(p["online"] and p["slots"]>0 for p in json.load(sys.stdin)))')" = 2 ] && break; sleep 0.1; done
on peers

say "alpha has a small project compiled and tested by another node"
mkdir "$dir/project"
printf '#include <stdio.h>\nint add(int a, int b) { return a + b; }\nint main(void) { int bad = add(2, 2) != 4; puts(bad ? "add: FAILED" : "add: ok"); return bad; }\n' >"$dir/project/test.c"
printf 'set -e\necho compiling\n${CC:-cc} -Wall -o test test.c\nmkdir -p out\n./test | tee out/result.txt\n' >"$dir/project/test.sh"
"$v6" run --data-dir "$dir/alpha" --input "$dir/project" --output 'out/**' --id-file "$dir/id" -- sh test.sh
job=$(cat "$dir/id")
say "why there"
on job explain "$job"
say "its files come home"
on get "$job" "$dir/got"
cat "$dir/got/out/result.txt"

say "a second job; its worker is killed in the middle"
job=$("$v6" run --data-dir "$dir/alpha" --detach --json -- sh -c 'for i in 1 2 3 4 5; do echo "step $i"; sleep 1; done' | field job)
sleep 2.5
owner=$(on job show "$job" --json | python3 -c 'import json,sys; print([a["node"] for a in json.load(sys.stdin)["tasks"][0]["attempts"] if a["state"]=="running"][-1])')
for name in beta gamma; do
  if grep -q "$owner" "$dir/$name.ready"; then
    echo "kill -9 of $name, which runs it"
    kill -9 "${pid[$name]}"
    wait "${pid[$name]}" 2>/dev/null || true
    unset "pid[$name]"
  fi
done
on logs -f "$job"
on job show "$job"

say "ideas, and jobs that serve them"
idea=$(on idea add 'قراءة الإيصالات بالهاتف' --body 'يلتقط المستخدم صورة الإيصال، فتُقرأ الأرقام العربية والهندية معاً.' --json | field id)
on idea add 'Cache the toolchains' --body 'Every build downloads 400 MB' >/dev/null
on idea argue --for "$idea" 'Every receipt is typed by hand today' >/dev/null
on idea list
"$v6" run --data-dir "$dir/alpha" --detach --idea "$idea" --array 20 -- sh -c 'sleep 3; echo "receipt $V6_TASK_ID read"'
"$v6" run --data-dir "$dir/alpha" --detach --label gpu -- sh -c 'echo training'

say "try it yourself"
echo "page  $(on open --print)   (opens one browser, once, within ten minutes)"
echo "API   $(field api <"$dir/alpha.ready")   (token in $dir/alpha/api.token)"
echo "      $v6 run --data-dir $dir/alpha -- uname -a"
[ -n "${V6_DEMO_ONCE:-}" ] && exit 0
echo "Ctrl-C stops the nodes."
while :; do sleep 1; done

#!/bin/sh
# Keeps a V6 node running on this desktop: joins the mesh of a server with a token, starts the node, looks after it.
set -u

usage() {
  cat <<'TEXT'
Keeps a V6 node running on this desktop.

  start_v6_desktop_node.sh --server-url http://SERVER:8000 --token TOKEN [--worker-name NAME] [--labels A,B] [--poll-sec N]

  --server-url URL   a gateway or node of the mesh; it is asked where the mesh is reached (GET /v1/join)
  --token TOKEN      a ticket, as `v6 invite --role worker` printed it; it never leaves this PC in clear
  --worker-name NAME name of this PC in the mesh [default: the host's]
  --labels A,B       labels that jobs can ask for
  --poll-sec N       seconds between two looks at the node [default: 5]

Environment: V6_BIN (the program; else beside this script, else on PATH), V6_DATA_DIR (the node's data directory).
Running this means that you let the members of the mesh run their jobs on this PC, in a sandbox; the file accept.toml in
the data directory narrows whose and which. Ctrl-C or SIGTERM ends the node and this script.
TEXT
}

say() {
  line="$(date '+%Y-%m-%d %H:%M:%S') $*"
  printf '%s\n' "$line"
  [ -n "${log:-}" ] && { printf '%s\n' "$line" >>"$log"; rotate "$log"; }
  return 0
}
wrong() {
  printf '%s\n' "$1" "See --help." >&2
  exit 2
}

# A log above 5 MB becomes FILE.1, and FILE.1 becomes FILE.2.
rotate() {
  size=$(wc -c <"$1" 2>/dev/null || echo 0)
  [ "$size" -gt 5000000 ] || return 0
  [ -f "$1.1" ] && mv -f "$1.1" "$1.2"
  cp "$1" "$1.1" && : >"$1"
}

server= token= name= labels= poll=5
while [ $# -gt 0 ]; do
  case $1 in
    --help|-h) usage; exit 0 ;;
    --server-url|--token|--worker-name|--labels|--poll-sec)
      [ $# -ge 2 ] || wrong "$1 wants a value."
      case $1 in
        --server-url) server=${2%/} ;;
        --token) token=$2 ;;
        --worker-name) name=$2 ;;
        --labels) labels=$2 ;;
        --poll-sec) poll=$2 ;;
      esac
      shift 2 ;;
    *) wrong "unknown option $1." ;;
  esac
done
[ -n "$server" ] || wrong "--server-url is missing: the address of the gateway, such as http://192.168.1.10:8000."
case $server in http://*|https://*) ;; *) wrong "--server-url $server is no address: it begins with http:// or https://." ;; esac
[ -n "$token" ] || wrong "--token is missing: a ticket of \`v6 invite --role worker\`."
case $poll in ''|*[!0-9]*|0) wrong "--poll-sec $poll is no number of seconds." ;; esac

here=$(cd "$(dirname "$0")" && pwd)
v6=${V6_BIN:-}
if [ -z "$v6" ]; then
  if [ -x "$here/v6" ]; then v6=$here/v6; else v6=$(command -v v6 || true); fi
fi
[ -n "$v6" ] && [ -x "$v6" ] || wrong "the program v6 is missing: put it beside this script, on PATH, or name it by V6_BIN."
dir=${V6_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/v6}
mkdir -p "$dir" || exit 1

# One launcher per data directory; the lock goes with the process that holds it.
exec 9>"$dir/launcher.lock" || exit 1
if ! flock -n 9; then
  echo "already running: a launcher looks after $dir"
  exit 0
fi
log=$dir/launcher.log

if [ ! -e "$dir/accept.toml" ]; then
  cat >"$dir/accept.toml" <<'TOML'
# Whose jobs this PC takes, and which. Without a line everything is taken but the network. Changes count within seconds.
# members  = ["ines", "laptop"]   # persons or nodes, by name or id
# commands = ["cargo", "make"]    # first word of the command
# labels   = ["ci"]               # only jobs that ask for one of these
# network  = false                # whether jobs may use the network
TOML
fi
say "this PC runs jobs of the members of the mesh, in a sandbox; $dir/accept.toml narrows whose and which"

# What a page of the server says, or nothing.
fetch() {
  if command -v curl >/dev/null; then curl -fsSk --max-time 10 "$1" 2>/dev/null
  elif command -v wget >/dev/null; then wget -qO- --no-check-certificate --timeout=10 --tries=1 "$1" 2>/dev/null
  fi
}

# Addresses at which the server says that the mesh is reached, one per line.
addresses() {
  fetch "$server/v1/join" | tr -d '\n' | sed -n 's/.*"addresses" *: *\[\([^]]*\)\].*/\1/p' | tr ',' '\n' \
    | sed -n 's/^ *"\(\/[A-Za-z0-9/.:_-]*\)" *$/\1/p' | head -n 16
}

node=
# The node alone: the launcher's lock does not stay with it.
start() {
  set -- up --data-dir "$dir" --api 127.0.0.1:0 --json
  [ -n "$name" ] && set -- "$@" --name "$name"
  [ -n "$labels" ] && set -- "$@" --labels "$labels"
  found=$(addresses)
  if [ -n "$found" ]; then
    say "the server $server says where the mesh is reached"
    for address in $found; do set -- "$@" --peer "$address"; done
  else
    say "the server $server does not answer: going on with the addresses of the ticket"
  fi
  # The ticket stands in the node's environment, not in the list of processes.
  V6_TICKET=$token "$v6" "$@" >"$dir/ready.json" 2>>"$dir/node.log" 9>&- &
  node=$!
  began=$(date +%s)
}

alive() { kill -0 "$node" 2>/dev/null; }
answers() { timeout 10 "$v6" status --data-dir "$dir" --json >/dev/null 2>&1 9>&-; }

stop() {
  trap - INT TERM
  if [ -n "$node" ] && alive; then
    say "stopping the node"
    kill "$node" 2>/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10; do alive || break; sleep 1; done
    alive && kill -9 "$node" 2>/dev/null
    wait "$node" 2>/dev/null
  fi
  say "stopped"
  exit 0
}
trap stop INT TERM

# A pause that a signal ends.
pause() {
  sleep "$1" 9>&- &
  wait $! 2>/dev/null
}

backoff=1 silent=0 shown=
start
say "started the node ($v6, data in $dir)"
while :; do
  pause "$poll"
  rotate "$dir/node.log"
  if ! alive; then
    wait "$node" 2>/dev/null
    code=$?
    why=$(tail -n 1 "$dir/node.log" 2>/dev/null)
    [ $(($(date +%s) - began)) -gt 60 ] && backoff=1
    say "the node ended with code $code${why:+: $why}; starting it again in $backoff s"
    pause "$backoff"
    backoff=$((backoff * 2)); [ "$backoff" -gt 60 ] && backoff=60
    silent=0 shown=
    start
  elif answers; then
    silent=0
    if [ -z "$shown" ]; then say "the node runs: $(head -c 400 "$dir/ready.json")"; shown=1; fi
  else
    silent=$((silent + 1))
    # A node that has just begun may still be joining.
    if [ "$silent" -ge 6 ] && [ $(($(date +%s) - began)) -gt 60 ]; then
      say "the node does not answer: ending it"
      kill -9 "$node" 2>/dev/null
    fi
  fi
done

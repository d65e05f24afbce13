# What the stories share. Each runs in an empty folder with `mor` on the path; $MODEL is a small checkpoint, $CORPUS a
# text of a few kB.
set -euo pipefail
trap 'echo "failed: line $LINENO of ${0##*/}: $BASH_COMMAND" >&2' ERR

# fail WORDS: ends the story, with what the last program said.
fail() {
  echo "failed: line ${BASH_LINENO[-2]} of ${0##*/}: $*" >&2
  [ ! -e err.txt ] || { echo "its stderr:" && cat err.txt; } >&2
  exit 1
}

# ends CODE PROGRAM...: runs it, with stdout in out.txt and stderr in err.txt, and fails on another exit code.
ends() {
  local wanted=$1 code=0
  shift
  "$@" >out.txt 2>err.txt || code=$?
  [ "$code" = "$wanted" ] || fail "exit code $code, wanted $wanted: $*"
}

# refuses CODE PART PROGRAM...: with --quiet it ends with the code, one line on stderr that has the part, and no result.
refuses() {
  local code=$1 part=$2
  shift 2
  ends "$code" "$@" --quiet
  [ ! -s out.txt ] || fail "a result on stdout: $*"
  [ "$(wc -l <err.txt)" = 1 ] || fail "more or less than one line: $*"
  grep -qF -- "$part" err.txt || fail "no \"$part\" in the line: $*"
}

# not_run WHAT: says what cannot be tried on this machine.
not_run() { echo "not run: $*"; }

# same A B WHAT: fails unless two texts are the same.
same() { [ "$1" = "$2" ] || fail "$3: \"$1\" is not \"$2\""; }

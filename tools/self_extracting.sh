#!/bin/sh
# mor: a program, and the Deno that runs it, packed after this script, which unpacks them once per user and version and
# becomes the program (exec), so that signals and the exit code are the program's own. Words between @ are filled in by
# `deno task compile`.
set -eu

# A home that is not there is none: nobody's often is not.
[ -d "${HOME:-/}" ] || unset HOME

# The program's folder in the user's cache, as in cli/cache_folder.ts; empty where no variable names a place.
cache=${XDG_CACHE_HOME:-${HOME:+$HOME/@CACHE@}}
cache=${cache:+${cache%/}/mor}

# Whether a folder has the program, whole: cleaners of temporary files take files out of folders that they leave.
has_program() { [ -x "$1/@HASH@/deno" ] && [ -r "$1/@HASH@/program/entry.js" ]; }

# Two first starts at once both unpack, each into a folder of its own; the first to rename it wins. Where this is called
# no failure ends the script by itself, and each is looked at.
unpack() {
  mkdir -p "$1" 2>/dev/null && [ -w "$1" ] || return 1
  fresh=$(mktemp -d "$1/unpack.XXXXXX" 2>/dev/null) || return 1
  trap 'rm -rf "$fresh"' EXIT
  trap 'exit 130' INT TERM HUP
  if tail -n +@LINES@ "$0" | tar -xzf - -C "$fresh"; then
    [ ! -e "$1/@HASH@" ] || has_program "$1" || rm -rf "$1/@HASH@"
    mv "$fresh" "$1/@HASH@" 2>/dev/null || true
    # Where the folder was there already, mv has put the fresh one inside it.
    rm -rf "$1/@HASH@/${fresh##*/}"
  fi
  rm -rf "$fresh"
  trap - EXIT INT TERM HUP
  has_program "$1"
}

base=${cache:+$cache/bin}
if [ -z "$base" ] || { ! has_program "$base" && ! unpack "$base"; }; then
  # Without a cache folder, in the one for temporary files: under the user's name, and only if it is the user's own.
  base=${TMPDIR:-/tmp}/mor-$(id -u)
  mkdir -m 700 "$base" 2>/dev/null || true
  if [ -h "$base" ] || { [ -e "$base" ] && [ ! -O "$base" ]; }; then
    echo "mor: Cannot trust $base: it is not a folder of yours; set XDG_CACHE_HOME to one that is" >&2
    exit 1
  fi
  if ! has_program "$base" && ! unpack "$base"; then
    echo "mor: Cannot unpack the program: no folder can take it; set XDG_CACHE_HOME to one that can" >&2
    exit 1
  fi
fi

# What the arguments allow: tools/permissions.ts and cli/written_paths.ts in the shell's words; a test compares them.
subcommand= config=
for argument in "$@"; do
  case $argument in
    --config | --config=*) config=1 ;;
    -*) ;;
    *) [ -n "$subcommand" ] || subcommand=$argument ;;
  esac
done

paths= anywhere=
add() { paths=${paths:+$paths,}$1; }
# Allows an output and its names in the making.
output() {
  path=$1 prefix=
  while [ "$path" != "${path%/}" ]; do path=${path%/}; done
  case $path in
    '' | . | .. | */. | */.. | *,* | *\\* | [A-Za-z]:*) anywhere=1 && return ;;
    */*) prefix=${path%/*}/ ;;
  esac
  add "$path"
  add "$path.unfinished"
  add "$prefix.${path##*/}.unfinished"
  # Of the folders above it that are not there, the topmost.
  folder=$prefix missing=
  while [ -n "$folder" ] && [ ! -d "$folder" ]; do
    while [ "$folder" != "${folder%/}" ]; do folder=${folder%/}; done
    missing=$folder
    case $folder in */*) folder=${folder%/*}/ ;; *) folder= ;; esac
  done
  [ -z "$missing" ] || add "$missing"
}
outputs() {
  output "$1"
  # A tokenizer may be named by its file; its configuration is written beside it.
  case $subcommand$path in tokenizer*.json) output "${prefix}tokenizer_config.json" ;; esac
}
previous=
for argument in "$@"; do
  case $previous in @OUTPUT_FLAGS@) outputs "$argument" ;; esac
  case $argument in @OUTPUT_FLAGS_JOINED@) outputs "${argument#*=}" ;; esac
  previous=$argument
done
[ "$subcommand" != demo ] || output @DEMO_FOLDER@
[ "$subcommand" != train ] || [ -z "$config" ] || anywhere=1
case $cache in
  '') ;;
  *,*) anywhere=1 ;;
  *)
    [ "$subcommand" != @NETWORK_COMMAND@ ] || add "$cache/@MODELS@"
    add "$cache/@TUNING@"
    ;;
esac
writing=${paths:+--allow-write=$paths}
[ -z "$anywhere" ] || writing=--allow-write
network=
[ "$subcommand" != @NETWORK_COMMAND@ ] || network="@NETWORK@"

set -- "$base/@HASH@/program/entry.js" "$@"
[ -z "$writing" ] || set -- "$writing" "$@"
export DENO_NO_UPDATE_CHECK=1
exec "$base/@HASH@/deno" run -q --no-config --no-lock --no-remote --no-npm @PERMISSIONS@ $network "$@"

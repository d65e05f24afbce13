# Odd folders, read-only ones, and no home.
. "${0%/*}/story.sh"
run="--model tiny --data $CORPUS --steps 2 --batch-size 2 --sequence-length 32 --eval-every 0"

# Names that shells and programs like to trip over.
for name in "two  words" "it's" '"quoted"' '$HOME' '*' 'a;b' 'naïve 鯨' $'new\nline' './-dash' 'comma,comma' '#x' '%41'; do
  folder="$name/run"
  mkdir -p "$name"
  mor inspect tiny --json >"$name/out.json"
  cp -r "$MODEL" "$folder"
  mor generate "$folder" -p x -n 1 -q >/dev/null || fail "generate in $name"
done
mor train $run --out "two  words/new folder/run" -q
mor quantize "two  words/new folder/run" --format q8_0 --out 'comma,comma/small' -q >/dev/null
mor export "$MODEL" --format hf --out 'naïve 鯨/export' -q >/dev/null 2>&1 || mor export "$MODEL" --format authors --out 'naïve 鯨/export' -q >/dev/null

# A parent that is there but empty, a file in the way.
printf x >file
refuses 1 'file' mor train $run --out file/run
refuses 1 'file' mor quantize "$MODEL" --format q8_0 --out file

# A folder that cannot be written, for whoever may mount one.
mkdir read-only
if mount -t tmpfs -o ro tmpfs read-only 2>/dev/null; then
  trap 'umount read-only' EXIT
  refuses 1 'read-only/run' mor train $run --out read-only/run
  refuses 1 'read-only' mor quantize "$MODEL" --format q8_0 --out read-only/q8
  printf '{"prompt": "x"}\n' >prompts.jsonl
  refuses 1 'read-only' mor generate "$MODEL" --prompts prompts.jsonl --out read-only/results.jsonl
  umount read-only && trap - EXIT
else
  not_run "a read-only folder, since nothing can be mounted here"
fi

# Without a home, with one that cannot be used, with a cache elsewhere.
text=$(mor generate "$MODEL" -p x -n 3 --seed 1 -q)
same "$(env -u HOME -u XDG_CACHE_HOME TMPDIR="$PWD" "$(command -v mor)" generate "$MODEL" -p x -n 3 --seed 1 -q)" "$text" "no HOME"
same "$(env -u XDG_CACHE_HOME HOME="$PWD/no home" TMPDIR="$PWD" "$(command -v mor)" generate "$MODEL" -p x -n 3 --seed 1 -q)" "$text" "no such HOME"
[ ! -e "no home" ] || fail "a home was made"

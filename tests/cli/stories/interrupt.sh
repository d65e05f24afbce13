# Ctrl-C at each phase: exit code 130, what is saved is whole, and --resume goes on.
. "${0%/*}/story.sh"
# With it, each background job has a process group of its own, to which the signal goes as from a terminal.
set -m

# interrupts PATTERN PROGRAM...: sends Ctrl-C once stdout or stderr has the pattern ("" is at once); wants 130.
interrupts() {
  local pattern=$1 code=0
  shift
  : >out.txt && : >err.txt
  "$@" >out.txt 2>err.txt &
  local job=$!
  for ((i = 0; i < 600; i++)); do
    grep -qE -- "$pattern" out.txt err.txt && break
    kill -0 "$job" 2>/dev/null || break
    sleep 0.05
  done
  [ "$pattern" ] || sleep 0.1
  kill -INT -- "-$job" 2>/dev/null || fail "ended before it was interrupted: $*"
  wait "$job" || code=$?
  [ "$code" = 130 ] || fail "exit code $code after Ctrl-C at \"$pattern\": $*"
}

run="--model tiny --data $CORPUS --steps 100000 --batch-size 2 --sequence-length 32"
interrupts "" mor train $run --out early
# Before the first step, and in it: either nothing is there or a whole checkpoint.
interrupts "^adapter" mor train $run --out loading --eval-every 0
[ ! -e loading/model.safetensors ] || mor generate loading -p x -n 1 -q >/dev/null
interrupts "tokens/s" mor train $run --out training --eval-every 0
grep -q 'interrupted at step [0-9]*, saved in training; --resume goes on' err.txt || fail "no word of what was saved"
mor generate training -p x -n 1 -q >/dev/null
interrupts "tokens/s" mor train --out training --resume
interrupts "held-out" mor train $run --out evaluating --eval-every 1 --eval-batches 1000
mor generate evaluating -p x -n 1 -q >/dev/null

interrupts "" mor generate "$MODEL" -p x -n 100
interrupts "^Once" mor generate "$MODEL" -p "Once upon" -n 100000
[ "$(tail -c 1 out.txt | od -An -c | tr -d ' ')" = '\n' ] || fail "the text does not end its line"
seq 1 400 | sed 's/.*/{"prompt": "text &", "count": 100}/' >prompts.jsonl
interrupts "[0-9]/400" mor generate "$MODEL" --prompts prompts.jsonl --out results.jsonl
[ -e results.jsonl ] || fail "no file of results"
! grep -vE '^\{.*"text":.*\}$' results.jsonl || fail "lines that are no results"
interrupts "adapter" mor eval "$MODEL" --data "$CORPUS"
awk 'BEGIN { for (i = 0; i < 200000; i++) print int(rand() * 1e9) }' >big.txt
interrupts "words" mor tokenizer train --data big.txt --vocab-size 50000 --out tokenizer
[ ! -e tokenizer/tokenizer.json ] || fail "half a tokenizer"

# -q leaves results and errors; without a terminal nothing is coloured or redrawn.
. "${0%/*}/story.sh"
run="--model tiny --data $CORPUS --steps 2 --batch-size 2 --sequence-length 32 --eval-every 1"
printf '{"prompt": "x"}\n' >prompts.jsonl

quietly() {
  ends 0 "$@" -q
  [ ! -s err.txt ] || fail "words on stderr: $*"
}
quietly mor train $run --out run
quietly mor train --out run --resume
quietly mor generate run -p x -n 2 --depths
quietly mor generate run --prompts prompts.jsonl -n 2
quietly mor eval run --data "$CORPUS" --max-tokens 64
quietly mor quantize run --format q4_0 --out small
quietly mor inspect run
quietly mor tokenizer train --data "$CORPUS" --vocab-size 300 --out tokenizer
quietly mor doctor

# The same with words: on stderr, plain.
FORCE_COLOR=1 ends 0 mor generate run -p x -n 2 --depths
grep -q '^adapter: ' err.txt || fail "the adapter is not named"
grep -q '^seed: ' err.txt || fail "the seed is not echoed"
! grep -q $'[\033\r]' out.txt err.txt || fail "colours or redrawing without a terminal"
rm -r run
ends 0 mor train $run --out run
[ ! -s out.txt ] || fail "progress on stdout"
! grep -q $'[\033\r]' err.txt || fail "redrawing without a terminal"

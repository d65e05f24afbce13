# Results go into pipes, prompts come out of them.
. "${0%/*}/story.sh"
short="-n 5 --temperature 0 -q"

# A prompt from the command line, a pipe, a here-document and a file gives one and the same text.
text=$(mor generate "$MODEL" -p "Call me" $short)
same "${text:0:7}" "Call me" "the text begins with the prompt"
same "$(printf 'Call me' | mor generate "$MODEL" -p - $short)" "$text" "from a pipe"
same "$(mor generate "$MODEL" -p "$(cat <<<'Call me')" $short)" "$text" "from a here-string"
printf 'Call me' >prompt.txt
same "$(mor generate "$MODEL" -f prompt.txt $short)" "$text" "from a file"
mor generate "$MODEL" -p - $short <<'PROMPT' >here.txt
Two lines,
then a third
PROMPT
same "$(head -n 2 here.txt)" $'Two lines,\nthen a third' "a here-document keeps its lines"

# Whoever stops reading has enough: no error, and the rest of the pipe gets its bytes.
same "$(mor generate "$MODEL" -p "Call me" -n 2000 -q 2>broken.txt | head -c 7)" "Call me" "head"
[ ! -s broken.txt ] || fail "a broken pipe is complained of: $(cat broken.txt)"

# A training run goes on when nobody reads its notes any more.
mor train --model tiny --data "$CORPUS" --steps 3 --batch-size 2 --sequence-length 32 --eval-every 1 --out unread \
  2> >(head -c 1 >/dev/null)
mor generate unread -p x -n 1 -q >/dev/null

# Results that cannot be written are a failure.
if [ -e /dev/full ]; then
  code=0
  mor inspect tiny 2>full.txt >/dev/full || code=$?
  same "$code $(grep -c 'No space left' full.txt)" "1 1" "a full device"
fi

# Loops, xargs, sed.
printf 'a whale\nthe sea\n' >lines.txt
while read -r line; do
  mor generate "$MODEL" -p "$line" $short </dev/null
done <lines.txt >loop.txt
xargs -I{} mor generate "$MODEL" -p {} $short <lines.txt >xargs.txt
cmp loop.txt xargs.txt
sed 's/.*/{"prompt": "&"}/' lines.txt | mor generate "$MODEL" --prompts - --in-order $short >results.jsonl
same "$(wc -l <results.jsonl)" 2 "a line for each prompt"

# Files beside the results are written, whoever reads them.
mor profile tiny -p 4 -n 2 --repeats 1 --html page.html -q | true
[ -s page.html ] || fail "no page without a reader"

if ! command -v jq >/dev/null; then
  not_run "jq, which is not here"
  exit 0
fi
same "$(jq -r .prompt results.jsonl)" "$(cat lines.txt)" "prompts come back"
same "$(jq -r '.prompt + .text' results.jsonl)" "$(cat loop.txt)" "many prompts at once are what each is alone"
mor inspect tiny --json | jq -e '.parameters > 0' >/dev/null
mor eval "$MODEL" --data "$CORPUS" --max-tokens 64 --json -q | jq -e '.routings.causal.loss > 0' >/dev/null
mor doctor --json | jq -e .description >/dev/null
mor generate "$MODEL" -p "x" -n 2 --json -q | jq -e '.tokens | length == 2' >/dev/null

# Languages, encodings and sizes of texts.
. "${0%/*}/story.sh"
short="-n 3 --seed 1 -q"

# The locale changes neither numbers nor letters.
text=$(mor generate "$MODEL" -p "naïve 鯨" $short | od -c)
for locale in C POSIX C.UTF-8 tr_TR.UTF-8 de_DE.ISO-8859-1 nonsense; do
  same "$(LC_ALL=$locale LANG=$locale mor generate "$MODEL" -p "naïve 鯨" $short | od -c)" "$text" "in $locale"
done
same "$(LC_ALL=de_DE.UTF-8 mor inspect tiny)" "$(LC_ALL=C mor inspect tiny)" "numbers"

# What is not UTF-8 is said to be, and where.
printf 'a\377b' >latin.txt
refuses 1 'latin.txt' mor generate "$MODEL" -f latin.txt
refuses 1 'latin.txt' mor train --model tiny --data latin.txt --out run
refuses 1 'latin.txt' mor eval "$MODEL" --data latin.txt
code=0
printf 'a\377b' | mor generate "$MODEL" -p - -q >out.txt 2>err.txt || code=$?
same "$code $(wc -l <err.txt) $(grep -c stdin err.txt)" "1 1 1" "stdin that is not UTF-8"

# Very long ones are refused by number, not cut.
head -c 3000000 /dev/zero | tr '\0' 'a' >long.txt
refuses 1 'the prompt has 3000000 tokens' mor generate "$MODEL" -f long.txt
{ printf '{"prompt": "' && cat long.txt && printf '"}\n'; } >long.jsonl
refuses 1 'long.jsonl' mor generate "$MODEL" --prompts long.jsonl

# Empty ones.
: >empty.txt
refuses 2 '-p is empty' mor generate "$MODEL" -p ""
refuses 1 'empty prompt' mor generate "$MODEL" -p - </dev/null
refuses 1 'empty.txt' mor train --model tiny --data empty.txt --out run
refuses 1 'empty.txt' mor generate "$MODEL" --prompts empty.txt

# Line ends of other systems, a byte order mark, a NUL.
printf '\357\273\277{"prompt": "a"}\r\n{"prompt": "b"}\r\n' >windows.jsonl
ends 0 mor generate "$MODEL" --prompts windows.jsonl --in-order $short
same "$(grep -oE '"prompt":"[^"]*"' out.txt | tr '\n' ' ')" '"prompt":"a" "prompt":"b" ' "lines of another system"
printf 'a\0b' | mor generate "$MODEL" -p - $short | head -c 3 | od -An -c | grep -q 'a  *.0  *b' || fail "a NUL is lost"
[ ! -e run ] || fail "a refused run left a folder"

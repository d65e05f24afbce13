# On a terminal: colours, pictures of control characters, 20 columns.
. "${0%/*}/story.sh"
if ! script -qec true /dev/null >/dev/null 2>&1; then
  not_run "a terminal, since the program script that brings one is not here"
  exit 0
fi
# on_terminal COLUMNS WORDS: what a terminal of so many columns would get, without what Deno's own set-up erases.
on_terminal() { script -qec "stty cols $1 rows 10; $2" /dev/null </dev/null | sed $'s/\033\\[[0-9]*[GJK]//g'; }
generate="mor generate '$MODEL' -n 60 --seed 1"

# Depths are colours, unless they are not wanted.
on_terminal 80 "$generate -p x --depths -q" >colored.txt
grep -q $'\033\[3[0-9]m' colored.txt || fail "no colours on a terminal"
for setting in NO_COLOR=1 TERM=dumb; do
  on_terminal 80 "$setting $generate -p x --depths -q" >plain.txt
  ! grep -q $'\033\[[0-9;]*m' plain.txt || fail "colours with $setting"
done

# Control characters of a prompt or a model are pictures, unless asked for; in a pipe they are what they are.
evil=$'\033]0;title\007\033[5;5H'
export evil
on_terminal 80 "$generate -p \"\$evil\" --temperature 3 --top-k 0 --top-p 1 -q" >shown.txt
! tr -d '\r\n\t' <shown.txt | LC_ALL=C grep -q '[[:cntrl:]]' || fail "control characters reach the terminal"
grep -qF '␛]0;title␇␛[5;5H' shown.txt || fail "no pictures of control characters"
on_terminal 80 "$generate -p \"\$evil\" --raw -q" >raw.txt
grep -qF "$evil" raw.txt || fail "--raw does not let them through"
same "$(mor generate "$MODEL" -p "$evil" -n 1 -q | head -c ${#evil})" "$evil" "in a pipe"
on_terminal 80 "mor generate \"\$evil\" -p x -q" >error.txt || true
grep -qF '0;title' error.txt || fail "the name is not in the error"
! tr -d '\r\n' <error.txt | LC_ALL=C grep -q '[[:cntrl:]]' || fail "control characters of a name in an error"

# Twenty columns: the progress line is cut to them, help and tables still come.
run="mor train --model tiny --data '$CORPUS' --steps 4 --batch-size 2 --sequence-length 32 --eval-every 0 --out run"
on_terminal 20 "$run" >narrow.txt
tr '\r' '\n' <narrow.txt | sed $'s/\033\\[[0-9;]*[A-Za-z]//g' | grep '\[' >bars.txt || true
[ -s bars.txt ] || fail "no progress line on a terminal"
while read -r line; do [ "${#line}" -le 20 ] || fail "a progress line of ${#line} columns: $line"; done <bars.txt
on_terminal 20 "mor --help" | grep -q train
on_terminal 20 "mor inspect tiny" | grep -q parameters

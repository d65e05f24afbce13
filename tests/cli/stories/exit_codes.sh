# What a script learns from the exit code.
. "${0%/*}/story.sh"

ends 0 mor --help
ends 0 mor help train
ends 0 mor --version
refuses 2 'Unknown command "trian"' mor trian
refuses 2 'Unknown option "--stepz"' mor train --stepz 3
refuses 2 'one of -p, -f and --prompts' mor generate "$MODEL"
refuses 1 'nowhere' mor generate nowhere -p x
refuses 1 'no such file' mor train --model tiny --data nothing.txt --out run
refuses 4 'lower --batch-size' mor train --model tiny --data "$CORPUS" --out run --batch-size 1073741824 --sequence-length 32
[ ! -e run ] || fail "a refused run left a folder"

# In a shell's own words.
if mor inspect nowhere -q 2>/dev/null; then fail "a failure counts as success"; fi
mor inspect nowhere -q 2>/dev/null || code=$?
same "$code" 1 "exit code"

# Without an adapter.
[ "$(uname)" = Linux ] || { not_run "no adapter, which only Vulkan's loader can be told to find" && exit 0; }
export VK_DRIVER_FILES=/nonexistent VK_ICD_FILENAMES=/nonexistent
refuses 3 'No GPU adapter answers' mor doctor

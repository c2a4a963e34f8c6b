#!/bin/sh
# What many put round their program: settings before it, a word after it, and its own exit status handed on.
export SETTING="of the script"
"$PYTHON" "$(dirname "$0")/inner.py" "$@"
status=$?
echo "the script of rank $RANK hands on $status"
exit $status

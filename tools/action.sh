#!/usr/bin/env bash
# The step of action.yml: `mobiledeploy check` with the action's inputs, from CHECK_* variables.
set -uo pipefail
shopt -s nullglob

argv=(--github)
# An input that is empty leaves the command's own default.
for name in baseline data margin float-margin floor max-flips on-inconclusive runtime junit; do
  variable="CHECK_${name^^}"
  variable="${variable//-/_}"
  value="${!variable:-}"
  [[ -z "$value" ]] || argv+=("--$name" "$value")
done
[[ "${CHECK_NO_LABELS:-false}" != true ]] || argv+=(--no-labels)

artifacts=()
# Unquoted on purpose: patterns become files. Records lie beside what they speak of.
for path in ${CHECK_ARTIFACTS:?no artifacts were named}; do
  [[ "$path" == *.json ]] || artifacts+=("$path")
done
if ((${#artifacts[@]} == 0)); then
  echo "::error title=mobiledeploy check::no file fits $CHECK_ARTIFACTS" >&2
  code=2
else
  code=0
  python -m mobiledeploy check "${argv[@]}" -- "${artifacts[@]}" || code=$?
fi
echo "exit-code=$code" >>"${GITHUB_OUTPUT:-/dev/null}"
exit "$code"

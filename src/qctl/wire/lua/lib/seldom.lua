-- Functions that a worker's step seldom needs. Redis makes the functions of a script anew in each call. To make the
-- functions below takes as long as several commands, so they are made only when a step first needs one.
--@include events

local made
local function seldom()
  if not made then
    --@include end_job
    made = {count_metrics = count_metrics, end_job = end_job, promote_due = promote_due,
      trim_finished = trim_finished, wake = wake}
  end
  return made
end

-- Functions that a worker's step seldom needs. Redis makes the functions of a script anew in each call. To make the
-- functions below takes as long as several commands, so they are made only when a step first needs one.
--@include events

local made
local function seldom()
  if not made then
    --@include dedup
    made = {add_kept_job = add_kept_job, child_completed = child_completed, child_failed = child_failed,
      delete_job_keys = delete_job_keys, detach_from_parent = detach_from_parent, parent_of = parent_of,
      promote_due = promote_due, release_dedup = release_dedup, trim_finished = trim_finished, wake = wake}
  end
  return made
end

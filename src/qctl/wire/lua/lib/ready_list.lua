-- The list of the jobs that are ready, and the marker for it; base is the queue's key prefix, "bull:q:".
--@include markers
--@include paused_list

-- The list for jobs that are ready now (P4).
local function target_list(base)
  if is_paused_list_used(base .. "meta", base .. "wait", base .. "paused") then
    return base .. "paused"
  end
  return base .. "wait"
end

-- Wakes one idle worker, unless no job may start (P5).
local function wake(base)
  if not is_blocked(base .. "meta", base .. "active") then
    mark_base(base .. "marker")
  end
end

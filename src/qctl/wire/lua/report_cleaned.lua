-- Write one event for many deleted jobs. Wire format 5.19 (clean).
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] how many jobs were deleted
--
-- Answers the id of the event.
--@include events

return emit(KEYS[1], "cleaned", "count", ARGV[1])

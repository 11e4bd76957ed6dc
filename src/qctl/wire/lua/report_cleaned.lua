-- Write one event for many deleted jobs. Wire format 5.19 (clean).
--
-- KEYS[1] events   KEYS[2] meta   KEYS[3] the queue's key prefix with its last colon
-- ARGV[1] how many jobs were deleted
--
-- Answers the id of the event.
--@include events

return emit(KEYS[1], KEYS[2], "event", "cleaned", "count", ARGV[1])

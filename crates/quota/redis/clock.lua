-- The only clock: the server's, in microseconds. 16 digits: an exact double until the year 2255.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

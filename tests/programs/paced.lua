-- For wrk: each connection waits 2 ms before it asks, so that what arrives does not depend on how fast the machine is.
function delay()
  return 2
end

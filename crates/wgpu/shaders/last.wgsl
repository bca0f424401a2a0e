// The last of several workgroups that share a ticket goes on with what all of them have written: a second kernel without a second
// dispatch. Nobody waits. What they write stands in a coherent binding; the barriers order it before and behind the ticket for the
// whole device, which Vulkan promises and Metal does not. Whose turn it is makes no difference to any sum.
var<workgroup> arrived: u32;

// `own` of the `count` that share the ticket are this workgroup's.
fn is_last(ticket: u32, own: u32, count: u32, tid: u32) -> bool {
    storageBarrier();
    if (tid == 0u) {
        arrived = atomicAdd(&tickets[ticket], own) + own;
        if (arrived == count) { atomicStore(&tickets[ticket], 0u); } // for the next dispatch
    }
    workgroupBarrier();
    let last = arrived == count;
    storageBarrier();
    return last;
}

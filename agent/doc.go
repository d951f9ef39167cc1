// Package agent is the loop on a real server: it keeps the tunnel side as the directors want it, checks
// the local services through their VIPs, and tells every director what it found, under a lease.
//
// The main loop owns all state. Around it, goroutines that only carry I/O - one for each director, one
// for each check, one for the kernel's notifications, one for the directors' witness questions - leave
// what they learn where the loop finds it, and wake it. None of them waits for the loop, so a slow kernel
// call never costs a lease.
package agent

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CPU access to the memory of a device: faults, disabling of the memory,
 * resets.  docs/design.md describes the protocol in words.
 *
 * Two devices.  Any number of threads may fault on one page of device 0 (two
 * are enough to find what more would), and go on to access it.  Meanwhile the
 * memory of device 0 is disabled and enabled, device 0 is reset on its own,
 * and two hot resets affect both devices, in opposite orders.
 *
 * Alternatives, of which spin must find the flaw named:
 *
 *   FAULT_UNLOCKED	  fault does not take memory_lock: access to disabled
 *			  memory
 *   FAULT_TRYLOCK	  fault gives up if memory_lock is taken: SIGBUS while
 *			  the memory is enabled
 *   FAULT_REMAPS	  fault takes for granted that the page is not there:
 *			  populated twice, which is a BUG() in the kernel
 *   ZAP_AFTER_DISABLE	  the pages are taken away after the memory: access to
 *			  disabled memory
 *   HOT_RESET_WAITS	  hot reset waits for each memory_lock: deadlock
 *   USER_COPY_LOCKED	  user memory is touched with memory_lock held for
 *			  write, and turns out to be device memory: deadlock
 */

#define ND	2		/* devices */

byte readers[ND];		/* memory_lock */
bool writer[ND];

bool disabled[ND];		/* the memory-enable bit is clear */
bool in_reset[ND];
bool populated;			/* the page of device 0 in the page table */

/* what must never be */
bool bad_access;
bool bad_sigbus;
bool populated_twice;

inline read_lock(d)		{ atomic { !writer[d] -> readers[d]++ } }
inline read_unlock(d)		{ readers[d]-- }
inline write_lock(d)
{
	atomic { (!writer[d] && readers[d] == 0) -> writer[d] = true }
}
inline write_unlock(d)		{ writer[d] = false }

/* the i_mmap lock and the page table lock are inside of this step */
inline zap(d)
{
	atomic {
		if
		:: d == 0 -> populated = false
		:: else
		fi
	}
}

/*
 * mmap_lock is held for read throughout, and nobody here takes it for write
 * together with any of these locks, so it is left out.
 */
inline fault(seen)
{
#ifdef FAULT_REMAPS
	seen = populated;
#endif
#ifdef FAULT_TRYLOCK
	atomic {
		if
		:: !writer[0] -> readers[0]++
		:: else -> bad_sigbus = !disabled[0]; assert(!bad_sigbus); goto out
		fi
	}
#elif !defined(FAULT_UNLOCKED)
	read_lock(0);
#endif
	atomic {
		if
		:: disabled[0] -> goto sigbus
		:: else
		fi
	}
	atomic {
#ifdef FAULT_REMAPS
		populated_twice = !seen && populated;
#endif
		assert(!populated_twice);
		populated = true
	}
	goto unlock;
sigbus:
#ifndef FAULT_UNLOCKED		/* wrong as well then, but not the point */
	atomic {
		bad_sigbus = !disabled[0];
		assert(!bad_sigbus)
	}
#endif
unlock:
#ifndef FAULT_UNLOCKED
	read_unlock(0)
#else
	skip
#endif
}

proctype Thread()
{
	bool seen;
	byte n;

	do
	:: n < 2 ->
		atomic {
			n++;
			if
			:: populated ->
				bad_access = disabled[0] || in_reset[0];
				assert(!bad_access);
				goto next
			:: else
			fi
		}
		fault(seen);
next:		seen = false
	:: n == 2 -> break
	od;
out:	skip
}

/* the command register, or a power state */
proctype Disable()
{
#ifdef ZAP_AFTER_DISABLE
	write_lock(0);
	disabled[0] = true;
	zap(0);
	write_unlock(0);
#else
	write_lock(0);
	zap(0);
	disabled[0] = true;
	write_unlock(0);
#endif
	write_lock(0);
	disabled[0] = false;
	write_unlock(0)
}

proctype Reset()
{
	write_lock(0);
	zap(0);
	in_reset[0] = true;
#ifdef USER_COPY_LOCKED
	read_lock(0);		/* the fault handler, from copy_to_user() */
	read_unlock(0);
#endif
	in_reset[0] = false;
	write_unlock(0)
}

proctype Hot_reset(byte first)
{
	byte second = 1 - first;

#ifdef HOT_RESET_WAITS
	write_lock(first);
	zap(first);
	write_lock(second);
	zap(second);
#else
	atomic {
		if
		:: !writer[first] && readers[first] == 0 -> writer[first] = true
		:: else -> goto busy
		fi
	}
	zap(first);
	atomic {
		if
		:: !writer[second] && readers[second] == 0 ->
			writer[second] = true
		:: else -> goto unwind
		fi
	}
	zap(second);
#endif
	in_reset[0] = true;
	in_reset[1] = true;
	in_reset[1] = false;
	in_reset[0] = false;
	write_unlock(second);
unwind:
	write_unlock(first);
busy:	skip
}

init {
	atomic {
		run Thread();
		run Thread();
		run Disable();
		run Reset();
		run Hot_reset(0);
		run Hot_reset(1)
	}
}

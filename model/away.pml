/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When is the memory of a device away, and who says so?
 *
 * vfio-pci's side of suspending: memory_lock, mem_lock over the mask of
 * reasons and the call of the chain, and what the PCI core locks around a
 * reset.  The chain's other end is one bit, "peer": a peer's IOMMU maps the
 * memory.  Calling the chain waits for nobody (chain.pml), so here it is one
 * step with the change of the mask.
 *
 * Processes, each if defined; of ND devices:
 *
 *   CMD	command register: disables and enables memory; the write may
 *		fail; enabling finds BARs that were wiped, and restores them
 *   PM		low power entry and exit, and the sleep between
 *   OWN	VFIO_DEVICE_RESET, or an FLR through config space
 *   SYSFS	a reset through sysfs
 *   HOT	a hot reset of all devices; without dev_set->lock (NO_DEV_SET,
 *		as on 5.10) another one, in the opposite order
 *   AER	an error that freezes device 0, and its recovery by a reset of
 *		the link, which wipes the BARs
 *   MAP	maps and unmaps device 0 for the peer
 *   CLOSE	closes the last device
 *
 * At each moment at which the memory goes, no peer may have it mapped; in the
 * end, if memory and mapping are there, the peer has it.
 *
 * Alternatives to the design, of which spin must find the flaw named:
 *
 *   PREPARE_LOCKS   reset_prepare takes memory_lock: deadlock, with itself
 *		     (OWN), and with a write of config space (CMD, SYSFS)
 *   HOT_WAITS	     hot reset waits for each memory_lock: deadlock, where there
 *		     is no dev_set->lock
 *   ONE_BIT	     vfio's own resets and those of the PCI core share a bit:
 *		     mapped while the memory goes
 *   MASK_UNLOCKED   the chain is called after mem_lock was dropped: mapped
 *		     while the memory goes
 *   SUSPEND_LATE    memory is disabled and then suspended: mapped while the
 *		     memory goes
 *   IGNORE_PM	     who enables memory does not look at low power: mapped
 *		     while the memory goes
 *   ASK_ONLY	     map believes that enabled memory is there: mapped while
 *		     the memory goes
 *   FAIL_SILENT     a failed write of the command register does not go
 *		     through the helper: left suspended
 *   PM_SILENT	     low power exit does not: left suspended
 *   LOST_RESTORED   LOST ends whenever BARs are restored: mapped while the
 *		     memory goes
 *   LOST_EARLY	     ... whether they are in order is seen before mem_lock is
 *		     taken: the same
 *   BARS_USER	     ... whether they are is read as a user reads config space,
 *		     with mem_lock held: deadlock with a reset
 *   LOST_NO_RESUME  LOST ends when BARs are in order at a write only, not at
 *		     the end of the recovery: left suspended
 *   CONFIG_CLOSED   the helper looks at config space of a device that is not
 *		     open: use of what is freed
 *   FREE_UNLOCKED   without dev_set->lock, config space is freed without
 *		     memory_lock: the same
 */

#ifndef ND
#define ND	1
#endif

#define DISABLED 1
#define LOWPOWER 2
#ifdef ONE_BIT
#define OURS	 8
#else
#define OURS	 4
#endif
#define RESET	 8
#define LOST	 16

/* ---- locks ---- */
bool writer[ND];		/* memory_lock */
byte readers[ND];
bool device_lock[ND];		/* the driver core's */
bool block_cfg[ND];		/* config accesses of users wait */
bool dev_set_lock;
#ifdef BARS_USER
bool mem_lock[ND];
#endif

/* ---- the device ---- */
bool on[ND];			/* the command register, D0..D2 */
bool in_reset[ND];
bool asleep[ND];
bool wiped[ND];			/* its BARs */
byte in_use[ND];		/* runtime pm's count, without ours */

/* ---- the driver ---- */
bool open[ND];
bool engaged[ND];		/* low power */
bool frozen[ND];		/* pdev->error_state */
byte mask[ND];

/* ---- the mapping ---- */
bool range[ND];
bool peer[ND];
bool owed[ND];			/* a resume has failed */
byte failures = 1;

/* what must never be */
bool stray;
bool left_suspended;
bool config_gone;

#define there(d)  (on[d] && !in_reset[d] && !asleep[d] && !wiped[d])

inline write_lock(d)
{
	atomic { (!writer[d] && readers[d] == 0) -> writer[d] = true }
}
inline write_unlock(d)	{ writer[d] = false }

/* The memory of d goes now, in the same step */
inline goes(d)		{ stray = peer[d]; assert(!stray) }

inline resume(d)
{
	if
	:: range[d] && open[d] && !peer[d] ->
		if
		:: true ->
			stray = !there(d);
			assert(!stray);
			peer[d] = true;
			owed[d] = false
		:: failures > 0 -> failures--; owed[d] = true
		fi
	:: else
	fi
}

/*
 * mem_lock: reasons come and go, and the chain hears of it.  Only there can be
 * seen whether BARs are in order: not in the way of error_detected().
 */
#if defined(LOST_EARLY) || defined(LOST_RESTORED)
#define gone_for(d, go)	(go)
#else
#define gone_for(d, go)	((frozen[d] || wiped[d]) && ((go) & LOST) ->	\
			 (go) - LOST : (go))
#endif

inline reasons(d, come, go)
{
#if defined(BARS_USER)
	atomic { !mem_lock[d] -> mem_lock[d] = true }
	if
	:: atomic { (go) & LOST -> !block_cfg[d] }
	:: !((go) & LOST)
	fi;
#endif
#ifdef MASK_UNLOCKED
	atomic {
		was = mask[d];
		mask[d] = (mask[d] | come) & (31 - gone_for(d, go));
		is = mask[d]
	}
	atomic {
		if
		:: was == 0 && is != 0 -> peer[d] = false
		:: was != 0 && is == 0 -> resume(d)
		:: else
		fi;
		was = 0;
		is = 0
	}
#else
	atomic {
		was = mask[d];
		mask[d] = (mask[d] | come) & (31 - gone_for(d, go));
		if
		:: was == 0 && mask[d] != 0 -> peer[d] = false
		:: was != 0 && mask[d] == 0 -> resume(d)
		:: else
		fi;
		was = 0
#ifdef BARS_USER
		; mem_lock[d] = false
#endif
	}
#endif
}

/* memory_lock is held for write, and is dropped now: what remains away? */
inline end_write(d, go)
{
#ifndef CONFIG_CLOSED
	atomic { was = open[d] };
#else
	atomic { was = true };
#endif
	atomic {
		bits = go;
		if
		:: !was
		:: was ->
			config_gone = !open[d];
			assert(!config_gone);
			bits = bits | (on[d] -> DISABLED : 0);
#ifdef IGNORE_PM
			bits = bits | LOWPOWER;
#else
			bits = bits | (!engaged[d] -> LOWPOWER : 0);
#endif
#ifdef LOST_EARLY
			bits = bits | (!frozen[d] && !wiped[d] -> LOST : 0)
#elif !defined(LOST_RESTORED)
			bits = bits | LOST
#endif
		fi;
		was = 0
	}
	reasons(d, 0, bits);
	atomic { bits = 0; write_unlock(d) }
}

/* err_handler->reset_prepare() and reset_done(), by the PCI core */
inline reset_prepare(d)
{
#ifdef PREPARE_LOCKS
	write_lock(d);
#endif
	reasons(d, RESET, 0);
#ifdef PREPARE_LOCKS
	write_unlock(d)
#endif
}
inline reset_done(d)	{ reasons(d, 0, RESET) }

#ifdef CMD
proctype Command(byte d)
{
	byte was, is, bits;

	/* ---- disable; whoever accesses config space wakes the device ---- */
	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
#ifndef SUSPEND_LATE
	reasons(d, DISABLED, 0);
#endif
	atomic { !block_cfg[d] }
	if
	:: atomic { goes(d); on[d] = false };
#ifdef SUSPEND_LATE
		reasons(d, DISABLED, 0)
#endif
	:: true ->				/* the write fails */
#ifdef FAIL_SILENT
		write_unlock(d);
		goto written
#endif
	fi;
	end_write(d, 0);
written:
	atomic { in_use[d]-- }

	/* ---- enable, or not ---- */
	atomic {
		if
		:: true
		:: true -> goto out
		fi;
		in_use[d]++;
		asleep[d] = false
	}
	write_lock(d);
	atomic { !block_cfg[d] }
	if
	:: wiped[d] || frozen[d] ->
		/* reading gives ones; writing may be in vain */
		atomic {
			!block_cfg[d] ->
			if
			:: wiped[d] = false
			:: frozen[d]
			fi
		}
#ifdef LOST_RESTORED
		reasons(d, 0, LOST)
#endif
	:: !wiped[d]
	fi;
	atomic { !block_cfg[d] -> on[d] = true }
	end_write(d, 0);
	atomic { in_use[d]-- }
out:	skip
}
#endif

#ifdef PM
proctype Low_power(byte d)
{
	byte was, is, bits;

	write_lock(d);
	reasons(d, LOWPOWER, 0);
	atomic { engaged[d] = true; write_unlock(d) }
	/* ---- the way back: an ioctl, or the device wakes up by itself ---- */
	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
	atomic { engaged[d] = false };
#ifdef PM_SILENT
	write_unlock(d);
#else
	end_write(d, 0);
#endif
	atomic { in_use[d]-- }
}

proctype Sleep(byte d)
{
end:	do
	:: atomic {
		engaged[d] && !in_use[d] && !asleep[d] ->
		goes(d);
		asleep[d] = true
	   }
	od
}
#endif

#ifdef OWN
proctype Own_reset(byte d)
{
	byte was, is, bits;

	atomic { in_use[d]++; asleep[d] = false }
	write_lock(d);
	reasons(d, OURS, 0);
	if
	:: atomic {
		!device_lock[d] && !block_cfg[d] ->
		device_lock[d] = true;
		block_cfg[d] = true
	   }
	   reset_prepare(d);
	   atomic { goes(d); in_reset[d] = true }
	   atomic { in_reset[d] = false }
	   reset_done(d);
	   atomic { block_cfg[d] = false; device_lock[d] = false }
	:: atomic { device_lock[d] || block_cfg[d] -> skip }	/* EAGAIN */
	fi;
	end_write(d, OURS);
	atomic { in_use[d]-- }
}
#endif

#ifdef SYSFS
proctype Sysfs_reset(byte d)
{
	byte was, is;

	atomic { in_use[d]++; asleep[d] = false }
	atomic { !device_lock[d] -> device_lock[d] = true }
	atomic { !block_cfg[d] -> block_cfg[d] = true }
	reset_prepare(d);
	atomic { goes(d); in_reset[d] = true }
	atomic { in_reset[d] = false }
	reset_done(d);
	atomic { block_cfg[d] = false; device_lock[d] = false; in_use[d]-- }
}
#endif

#ifdef HOT
/* ND is 2 */
proctype Hot_reset(byte first)
{
	byte was, is, bits, got, d;

#ifndef NO_DEV_SET
	atomic { !dev_set_lock -> dev_set_lock = true }
#endif
	do
	:: got < ND ->
		d = (first + got) % ND;
#ifdef HOT_WAITS
		write_lock(d);
#else
		if
		:: atomic {
			!writer[d] && readers[d] == 0 -> writer[d] = true
		   }
		:: atomic { writer[d] || readers[d] > 0 -> break }
		fi;
#endif
		reasons(d, OURS, 0);
		got++
	:: got == ND -> break
	od;
	if
	:: atomic {
		got == ND && !device_lock[0] && !device_lock[1] &&
		!block_cfg[0] && !block_cfg[1] ->
		device_lock[0] = true;
		device_lock[1] = true;
		block_cfg[0] = true;
		block_cfg[1] = true
	   }
	   reset_prepare(0);
	   reset_prepare(1);
	   atomic {
		goes(0);
		goes(1);
		in_reset[0] = true;
		in_reset[1] = true
	   }
	   atomic { in_reset[0] = false; in_reset[1] = false }
	   reset_done(0);
	   reset_done(1);
	   atomic {
		block_cfg[0] = false;
		block_cfg[1] = false;
		device_lock[0] = false;
		device_lock[1] = false
	   }
	:: atomic {
		!(got == ND && !device_lock[0] && !device_lock[1] &&
		  !block_cfg[0] && !block_cfg[1]) -> skip
	   }
	fi;
	do
	:: atomic { got > 0 -> got--; d = (first + got) % ND }
		end_write(d, OURS)
	:: atomic { got == 0 -> break }
	od;
#ifndef NO_DEV_SET
	atomic { dev_set_lock = false }
#endif
}
#endif

#ifdef AER
proctype Recovery()
{
	byte was, is, bits;

	/* error_detected() */
	atomic {
		!device_lock[0] -> device_lock[0] = true;
		frozen[0] = true
	}
	reasons(0, LOST, 0);
	atomic { device_lock[0] = false }
	/* the link is reset, and nothing of the device is saved or restored */
	atomic { !device_lock[0] -> device_lock[0] = true }
	atomic { !block_cfg[0] -> block_cfg[0] = true }
	atomic { goes(0); in_reset[0] = true; wiped[0] = true }
	atomic {
		in_reset[0] = false;
		block_cfg[0] = false;
		device_lock[0] = false
	}
	/* resume() */
	atomic {
		!device_lock[0] -> device_lock[0] = true;
		frozen[0] = false
	}
#if !defined(LOST_NO_RESUME) && !defined(LOST_RESTORED)
#ifdef LOST_EARLY
	atomic { bits = (!wiped[0] -> LOST : 0) }
	reasons(0, 0, bits);
#else
	reasons(0, 0, LOST);
#endif
#endif
	atomic { device_lock[0] = false; bits = 0 }
}
#endif

#ifdef MAP
proctype Mapper()
{
	byte round, was;

	do
	:: atomic { round < 2 ->
		/* unmap; and try what has failed again */
		range[0] = false;
		peer[0] = false;
		owed[0] = false
	   }
	   atomic { !writer[0] -> readers[0]++ }
	   atomic {
		was = on[0] && !engaged[0] && open[0];
		readers[0]--
	   }
	   atomic {
		if
		:: was && open[0] ->
			range[0] = true;
			if
#ifdef ASK_ONLY
			:: true ->
#else
			:: mask[0] == 0 ->
#endif
				stray = !there(0);
				assert(!stray);
				peer[0] = true
			:: else
			fi
		:: else
		fi;
		was = 0;
		round++
	   }
	:: atomic { round == 2 -> break }
	od
}
#endif

#ifdef CLOSE
proctype Close(byte d)
{
#ifdef NO_DEV_SET
	atomic { peer[d] = false; range[d] = false }	/* the chain is called */
#ifndef FREE_UNLOCKED
	write_lock(d);
#endif
	atomic { open[d] = false };			/* config space is freed */
#ifndef FREE_UNLOCKED
	write_unlock(d)
#endif
#else
	atomic {
		!dev_set_lock -> dev_set_lock = true;
		peer[d] = false;
		open[d] = false
	}
	atomic { dev_set_lock = false }
#endif
}
#endif

init {
	byte d, procs;

	atomic {
		do
		:: d < ND ->
			on[d] = true;
			open[d] = true;
			range[d] = true;
			peer[d] = true;
			d++
		:: d == ND -> break
		od;
#ifdef PM
		run Sleep(0);		/* ends never, so it is the first */
		procs++;
#endif
#ifdef CMD
		run Command(0);
#endif
#ifdef PM
		run Low_power(0);
#endif
#ifdef OWN
		run Own_reset(0);
#endif
#ifdef SYSFS
		run Sysfs_reset(ND - 1);
#endif
#ifdef HOT
		run Hot_reset(0);
#ifdef NO_DEV_SET
		run Hot_reset(1);
#endif
#endif
#ifdef AER
		run Recovery();
#endif
#ifdef MAP
		run Mapper();
#endif
#ifdef CLOSE
		run Close(ND - 1);
#endif
		d = 0
	}
	atomic {
		_nr_pr == 1 + procs ->
		do
		:: d < ND ->
			left_suspended = there(d) && range[d] && open[d] &&
					 !peer[d] && !owed[d];
			assert(!left_suspended);
			d++
		:: d == ND -> break
		od
	}
}

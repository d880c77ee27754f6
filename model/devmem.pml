/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lifetime of device memory mapped for DMA through VFIO type1.
 *
 * One device B, whose mmap is mapped for DMA in two containers; neither has
 * to be the container B itself is opened through.  docs/design.md describes
 * the protocol in words and uses the same names.
 *
 * Everything below may happen at any time, concurrently:
 *
 *   Owner(0), Owner(1)	    hold B open (fd and vma), drop both in either
 *			    order; Owner(1) opens B at any time, so this is
 *			    a second opener as well as a reopen
 *   Mapper(i)		    MAP_DMA of B's memory, UNMAP_DMA, in container
 *			    i; MAP may fail halfway, and an mdev vendor
 *			    driver may pin what was mapped
 *   Close(i)		    the last group leaves container i
 *   Worker(k)		    deferred unregistration of tracking object
 *			    ("idev") k
 *   Idle(k)		    the timer of idev k, that has lost its last range
 *			    (with IDLE, as it makes for many more states)
 *   Unbind		    B's driver is unbound
 *   Unload		    the type1 module is unloaded
 *
 * Every process ends (or, for the timer, has nothing to do), so if spin finds
 * no invalid end state, each completes in every interleaving: no deadlock.
 *
 * Alternatives to the design, of which spin must find the flaw named:
 *
 *   RFC_ORDER	     unregister the notifier with iommu->lock held: deadlock
 *   CALLBACK_WAITS  unregister from inside the callback: deadlock
 *   NO_IOMMU_REF    idev holds no reference on the iommu: use after free
 *   NO_IOCTL_GUARD  an ioctl does not keep the iommu from being released:
 *		     use after free
 *   LATE_REGISTER   register after mmap_lock is dropped: mapping left
 *   OPEN_UNLOCKED   open is not serialized with the release: mapping left
 *   NO_RECHECK      callback trusts its idev after retaking iommu->lock:
 *		     idev killed twice
 *   WORKER_NO_CANCEL worker does not cancel the timer: use after free
 *   UNBIND_NO_WAIT  unbind does not wait for registrations: use after free
 *   UNLOAD_NO_FLUSH unload does not wait for the workers: code gone
 */

/*
 * Size, for the search to stay within seconds: containers (1 or 2), and how
 * often each mapper maps and unmaps, hence how many idevs it can create.
 */
#ifndef NI
#define NI	2
#endif
#ifndef NS
#define NS	1
#endif
#define NK	(NI * NS)
#define NONE	NK
#define IOMMU(k) ((k) / NS)
#if NI > 1
#define all(v, e) ((v[0] e) && (v[1] e))
#else
#define all(v, e) (v[0] e)
#endif

/* ---- the device ---- */
bool open_lock;			/* of the device: opens and releases */
byte refcnt = 1;		/* opens, counted under it */
byte users = 2;			/* registration, and Owner(0)'s open */
byte nb_count;			/* registered notifiers */
bool chain[NK];			/* ... and which */
bool dev_freed;			/* vfio_device is gone */
bool released;			/* RELEASE was sent, B may be disabled */

/* SRCU of the notifier chain; open_lock allows one reader at a time */
bool srcu_reader;
byte srcu_gen;

/* ---- the mm all of this happens in ---- */
byte mm_readers;		/* mmap_lock; writers take one step */
bool vma[2];			/* a vma of Owner(n)'s open */

/* ---- containers ---- */
byte group_readers[NI];		/* container->group_lock */
bool group_writer[NI];
bool iommu_data_null[NI];	/* container->iommu_data == NULL */
bool iommu_lock[NI];
byte iommu_ref[NI];
bool iommu_freed[NI];
byte live[NI];			/* the live idev for B, or NONE */
byte created[NI];
byte mapped[NI];		/* idev of what the IOMMU maps, or NONE */
bool pinned[NI];		/* ... and a vendor driver pinned of it */

/* ---- idevs ---- */
bool dead[NK];
bool queued[NK];
bool idev_freed[NK];
bool armed[NK];			/* the timer */
bool fired[NK];			/* ... and it is running */

/* ---- the type1 module ---- */
byte module_refs = NI;
bool text_gone;

/* what must never be */
bool left_mapped;		/* B released, but mapped somewhere */
bool killed_twice;
bool never_reaped;

/*
 * Steps that touch only what a held lock protects are one atomic step with
 * taking or dropping that lock: no other process could tell the difference.
 * A process that has to wait in the middle of such a step holds its locks
 * while the others run, as in the kernel.
 */
inline lock_iommu(i)
{
	(!iommu_lock[i] || iommu_freed[i]);
	assert(!iommu_freed[i]);
	assert(!text_gone);
	iommu_lock[i] = true
}

inline unlock_iommu(i)
{
	assert(!iommu_freed[i]);
	iommu_lock[i] = false
}

inline put_iommu(i)
{
	assert(!iommu_freed[i]);
	iommu_ref[i]--;
	if
	:: iommu_ref[i] == 0 -> iommu_freed[i] = true
	:: else
	fi
}

/* iommu->lock held; gives locked_vm back: mmap_lock for write, for a moment */
inline unmap(i)
{
	mm_readers == 0;
#ifdef IDLE
	armed[mapped[i]] = true;
#endif
	mapped[i] = NONE
}

/* An ioctl on the container; "in" if that still has its iommu */
inline ioctl_begin(i, in)
{
	atomic {
#ifndef NO_IOCTL_GUARD
		!group_writer[i] -> group_readers[i]++;
#endif
		in = !iommu_data_null[i]
	}
}

inline ioctl_end(i)
{
#ifndef NO_IOCTL_GUARD
	group_readers[i]--
#else
	skip
#endif
}

/* srcu_notifier_chain_unregister(): unlink, then wait for the readers */
inline unlink_notifier(k, gen, wait)
{
	assert(!dev_freed);
	assert(chain[k]);
	chain[k] = false;
	gen = srcu_gen;
	wait = srcu_reader
}

inline synchronize(gen, wait)
{
	(!wait || srcu_gen != gen);
	assert(!dev_freed);
	nb_count--;
	gen = 0;
	wait = false
}

inline free_idev(k)
{
	assert(!idev_freed[k]);
	idev_freed[k] = true
}

/* iommu->lock held */
inline kill_idev(k)
{
	killed_twice = dead[k];
	assert(!killed_twice);
	dead[k] = true;
	live[IOMMU(k)] = NONE;
	queued[k] = true
}

/* The RFC: the last mapping takes its registration along, under the lock */
inline unregister_locked(i, k, gen, wait)
{
	k = live[i];
	live[i] = NONE;
	dead[k] = true;
	unlink_notifier(k, gen, wait);
	synchronize(gen, wait);
	put_iommu(i);
	free_idev(k);
	k = 0
}

/* VFIO_IOMMU_NOTIFY_DMA_UNMAP, called without iommu->lock */
inline notify_vendors(i)
{
	if
	:: atomic {
		pinned[i] ->
		lock_iommu(i);
		pinned[i] = false;
		unlock_iommu(i)
	   }
	:: atomic { !pinned[i] -> skip }
	fi
}

/*
 * The callback of idev n, inside of the SRCU read section and under
 * open_lock.  iommu->lock is dropped for the vendor drivers only.
 */
inline release_callback(n, gen, wait)
{
	atomic {
		assert(!idev_freed[n]);
		assert(!text_gone);
		lock_iommu(IOMMU(n));
		if
		:: !dead[n] && mapped[IOMMU(n)] == n && pinned[IOMMU(n)] ->
			unlock_iommu(IOMMU(n));
			pins = true
		:: else
		fi
	}
	if
	:: pins ->
		notify_vendors(IOMMU(n));
		atomic {
			pins = false;
			lock_iommu(IOMMU(n));
			assert(!(mapped[IOMMU(n)] == n && pinned[IOMMU(n)]))
		}
#ifdef NO_RECHECK
		goto live_idev
#endif
	:: else
	fi;
	atomic {
		if
		:: dead[n] -> goto dead_idev
		:: else
		fi;
live_idev:	if
		:: mapped[IOMMU(n)] == n ->
			unmap(IOMMU(n))
		:: else
		fi;
		kill_idev(n);
#ifdef CALLBACK_WAITS
		unlink_notifier(n, gen, wait);
		synchronize(gen, wait);
#endif
dead_idev:	assert(!idev_freed[n]);
		assert(!text_gone);
		unlock_iommu(IOMMU(n))
	}
}

/* fput() of the last reference to an open file of B */
inline device_release(n, gen, wait)
{
	atomic {
		!open_lock -> open_lock = true;
		refcnt--;
		if
		:: refcnt != 0 -> goto disabled
		:: else
		fi;
		/* Walk the chain: who registers from here on may be missed. */
		srcu_reader = true;
		do
		:: n < NK -> walk[n] = chain[n]; n++
		:: else -> break
		od;
		n = 0
	}
	do
	:: atomic { n == NK -> break }
	:: atomic { n < NK && !walk[n] -> n++ }
	:: atomic { n < NK && walk[n] && !chain[n] ->
		/* unlinked before the walk came by (or after: below) */
		walk[n] = false;
		n++
	   }
	:: n < NK && walk[n] ->
		release_callback(n, gen, wait);
		atomic { walk[n] = false; n++ }
	od;
	atomic {
		n = 0;
		srcu_gen++;
		srcu_reader = false
	}
	/* From here on the bus driver disables B. */
	atomic {
		released = true;
		left_mapped = !all(mapped, == NONE);
		assert(!left_mapped);
disabled:	open_lock = false
	}
	atomic {
		assert(!dev_freed);
		users--
	}
}

proctype Owner(bit me; bool opened)
{
	byte n, gen;
	bool wait, pins;
	bool walk[NK];

	if
	:: !opened ->
		atomic {
			if
			:: users == 0 -> goto out	/* B is unbound */
			:: else -> users++
			fi
		}
		atomic {
#ifndef OPEN_UNLOCKED
			!open_lock;
#endif
			refcnt++;
			if
			:: refcnt == 1 -> released = false
			:: else
			fi
		}
		atomic { mm_readers == 0 -> vma[me] = true }
	:: else
	fi;

	/*
	 * The order of close() and munmap() makes no difference: as long as
	 * there is the vma, B's memory can be mapped, and the file is open.
	 */
	atomic { mm_readers == 0 -> vma[me] = false }
	device_release(n, gen, wait);
out:	skip
}

/* MAP_DMA and UNMAP_DMA in container i, "rounds" times */
proctype Mapper(bit i; byte rounds)
{
	byte k, gen;
	bool in, wait;

	do
	:: rounds > 0 ->
		/* ---- map ---- */
		ioctl_begin(i, in);
		atomic {
			if
			:: !in -> goto gone
			:: else -> in = false
			fi;
			lock_iommu(i);
			if
			:: mapped[i] != NONE -> goto map_done	/* EEXIST */
			:: else
			fi;
			/* mmap_lock */
			mm_readers++;
			if
			:: !vma[0] && !vma[1] ->
				mm_readers--;
				goto map_done			/* EFAULT */
			:: else
			fi;
			/* find the device by the vma */
			assert(!dev_freed);
			assert(users > 0);
			users++;
#ifdef LATE_REGISTER
			mm_readers--
#endif
		}
		atomic {
			/* find or create and register the idev */
			assert(!dev_freed);
			k = live[i];
			if
			:: k == NONE ->
				k = i * NS + created[i];
				created[i]++;
				assert(created[i] <= NS);
#ifndef NO_IOMMU_REF
				iommu_ref[i]++;
#endif
				live[i] = k;
				nb_count++;
				chain[k] = true
			:: else
			fi;
			users--;
#ifndef LATE_REGISTER
			mm_readers--
#endif
		}
		atomic {
			if
			:: true ->
				mapped[i] = k;
				left_mapped = released;
				assert(!left_mapped);
				if
				:: pinned[i] = true
				:: skip
				fi
			:: true ->
				/* fails; who takes the registration? */
#if defined(RFC_ORDER)
				unregister_locked(i, k, gen, wait)
#elif defined(IDLE)
				armed[k] = true
#else
				skip
#endif
			fi;
map_done:		k = 0;
			unlock_iommu(i);
			ioctl_end(i)
		}

		/* ---- unmap ---- */
		ioctl_begin(i, in);
		atomic {
			if
			:: !in -> goto gone
			:: else -> in = false
			fi;
again:			lock_iommu(i);
			if
			:: mapped[i] == NONE
			:: mapped[i] != NONE && pinned[i] ->
				unlock_iommu(i);
				goto vendors
			:: mapped[i] != NONE && !pinned[i] ->
				unmap(i);
#ifdef RFC_ORDER
				unregister_locked(i, k, gen, wait)
#endif
			fi;
			unlock_iommu(i);
			ioctl_end(i);
			rounds--;
			goto next
		}
vendors:	notify_vendors(i);
		atomic { true -> goto again }
next:		skip
	:: rounds == 0 -> goto out
	od;
gone:	ioctl_end(i);
out:	skip
}

proctype Close(bit i)
{
	byte k, gen;
	bool wait;

	atomic {
		(!group_writer[i] && group_readers[i] == 0) ->
			group_writer[i] = true
	}
	atomic {
		lock_iommu(i);
		/* a vendor driver's group left, and unpinned, earlier */
		pinned[i] = false;
		if
		:: mapped[i] != NONE -> unmap(i)
		:: else
		fi;
		k = live[i];
		if
		:: k != NONE ->
#ifdef RFC_ORDER
			unregister_locked(i, k, gen, wait)
#else
			kill_idev(k)
#endif
		:: else
		fi;
		k = 0;
		unlock_iommu(i)
	}
	atomic {
		put_iommu(i);
		iommu_data_null[i] = true;
		module_refs--;
		group_writer[i] = false
	}
}

proctype Worker(byte k)
{
	byte gen;
	bool wait;

end:	atomic {
		queued[k] ->
		assert(!text_gone);
#if defined(IDLE) && !defined(WORKER_NO_CANCEL)
		!fired[k];
		armed[k] = false;
#endif
#ifndef CALLBACK_WAITS
		unlink_notifier(k, gen, wait)
#endif
	}
#ifndef CALLBACK_WAITS
	atomic { synchronize(gen, wait) }
#endif
	atomic {
		assert(!text_gone);
#ifndef NO_IOMMU_REF
		put_iommu(IOMMU(k));
#endif
		free_idev(k);
		queued[k] = false
	}
}

#ifdef IDLE
/* By trylock: if somebody has the lock it comes again */
proctype Idle(byte k)
{
end:	do
	:: atomic {
		armed[k] ->
		armed[k] = false;
		fired[k] = true
	   }
	   atomic {
		assert(!idev_freed[k]);
		assert(!text_gone);
		if
		:: iommu_lock[IOMMU(k)] -> armed[k] = true
		:: else ->
			lock_iommu(IOMMU(k));
			if
			:: mapped[IOMMU(k)] != k && !dead[k] -> kill_idev(k)
			:: else
			fi;
			unlock_iommu(IOMMU(k))
		fi;
		fired[k] = false
	   }
	od
}
#endif

proctype Unbind()
{
	users--;
	atomic {
		users == 0;
#ifndef UNBIND_NO_WAIT
		nb_count == 0;
#endif
		dev_freed = true
	}
}

proctype Unload()
{
	byte k;

	module_refs == 0;
	atomic {
#ifndef UNLOAD_NO_FLUSH
		/* destroy_workqueue() */
		do
		:: k < NK -> !queued[k]; k++
		:: k == NK -> break
		od;
		/* every idev that was ever created is gone, every iommu too */
		k = 0;
		do
		:: k < NK ->
			never_reaped = created[IOMMU(k)] > k % NS &&
				       !idev_freed[k];
			assert(!never_reaped);
			k++
		:: k == NK -> break
		od;
		never_reaped = !all(iommu_freed, == true);
		assert(!never_reaped);
#endif
		text_gone = true
	}
}

init {
	byte n;

	atomic {
		vma[0] = true;
		do
		:: n < NI ->
			iommu_ref[n] = 1;
			live[n] = NONE;
			mapped[n] = NONE;
			run Mapper(n, NS);
			run Close(n);
			n++
		:: n == NI -> break
		od;
		n = 0;
		do
		:: n < NK ->
			run Worker(n);
#ifdef IDLE
			run Idle(n);
#endif
			n++
		:: n == NK -> break
		od;
		run Owner(0, true);
		run Owner(1, false);
		run Unbind();
		run Unload()
	}
}

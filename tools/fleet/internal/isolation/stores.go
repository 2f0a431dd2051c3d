package isolation

import (
	"context"
	"errors"
	"fmt"
	"io"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/blob"
	"a3os.app/libs/pg"
	"a3os.app/libs/secret"
)

// proven says what a service of a set says of a resource when it starts.
func proven(w *World, s *Set, open func(ctx context.Context, owner *binding.Owner) (io.Closer, error)) ask {
	return func(ctx context.Context) answer {
		owner, err := binding.NewOwner(w.MarkKeys, w.Plane, s.Tenant)
		if err != nil {
			return unclearWith("%v", err)
		}
		c, err := open(ctx, owner)
		if err == nil {
			defer c.Close()
			err = owner.Prove(ctx)
		}
		switch {
		case err == nil:
			return openedWith("taken for its own")
		case errors.Is(err, binding.ErrRefused):
			return refusedWith("%v", err)
		}
		return unclearWith("%v", err)
	}
}

// marks are the resources of one set in the configuration of another.
func (w *World) marks(from, at *Set) []attempt {
	var out []attempt
	add := func(where, what string, open func(ctx context.Context, owner *binding.Owner) (io.Closer, error)) {
		out = append(out, attempt{wall: wallMarks, from: from.Name(), at: where, what: what, ask: proven(w, from, open),
			control: &control{what: at.Name() + " with the same", ask: proven(w, at, open)}})
	}
	for _, r := range at.Roles {
		queue, where := "", "database of "+at.Name()+" (role "+r.Name+")"
		if at.wallOf(r) == wallQueue {
			queue, where = at.Queue, "database and queue of "+at.Name()+" (role "+r.Name+")"
		}
		add(where, "start with the other's connection string", func(ctx context.Context, owner *binding.Owner) (io.Closer, error) {
			const one = 1
			db, err := pg.Open(ctx, pg.Config{URL: r.URL.Reveal(), MaxConns: one, Service: "isolation verify", Owner: owner, Queue: queue})
			return closer{db}, err
		})
		out[len(out)-1].lane = at.lane(r)
	}
	for _, st := range at.Stores {
		if st.Dir == "" {
			continue
		}
		switch st.Kind {
		case blueprint.StoreBlob:
			add("store "+st.Name+" of "+at.Name(), "start with the other's object store", func(_ context.Context, owner *binding.Owner) (io.Closer, error) {
				return blob.OpenLocalReader(st.Dir, owner)
			})
		case blueprint.StoreSecret:
			add("store "+st.Name+" of "+at.Name(), "start with the other's secret store and its key", func(_ context.Context, owner *binding.Owner) (io.Closer, error) {
				return secret.OpenLocalReader(st.Dir, owner, st.Private)
			})
		}
	}
	return out
}

// closer closes a database without an error.
type closer struct{ *pg.DB }

func (c closer) Close() error {
	if c.DB != nil {
		c.DB.Close()
	}
	return nil
}

// seals are the keys of one set at what is sealed for another.
func (w *World) seals(from, at *Set) []attempt {
	var out []attempt
	for _, theirs := range at.Stores {
		for _, ours := range from.Stores {
			if theirs.Kind != blueprint.StoreSecret || ours.Kind != blueprint.StoreSecret || theirs.Name != ours.Name {
				continue
			}
			opens := func(st Store) ask {
				return func(context.Context) answer {
					err := secret.Opens(theirs.Public, st.Private)
					switch {
					case err == nil:
						return openedWith("what is sealed for %s is opened", at.Name())
					case errors.Is(err, secret.ErrUnreadable):
						return refusedWith("the seal does not open")
					}
					return unclearWith("%v", err)
				}
			}
			out = append(out, attempt{wall: wallStores, from: from.Name(), at: fmt.Sprintf("store %s of %s", theirs.Name, at.Name()),
				what: "open what is sealed for the other with its own key", ask: opens(ours), control: &control{what: at.Name() + "'s key", ask: opens(theirs)}})
		}
	}
	return out
}

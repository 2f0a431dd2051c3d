package gateway_test

import (
	"net/http"
	"os"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

func (h *harness) send(c *registryv1.SignedSnapshotChange) {
	h.registry.answer(&registryv1.WatchSnapshotResponse{Change: c})
}

// wholes is how often the registry was asked for the snapshot whole.
func (r *registry) wholes() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, req := range r.asked {
		if req.GetHaveVersion() == 0 {
			n++
		}
	}
	return n
}

// Fault row F17, for what changed since the snapshot that came whole.
func TestChangesServeOnAndAreHeldAcrossAStartWithoutARegistry(t *testing.T) {
	h := newHarness(t)
	acme, globex, initech := h.tenant("acme"), h.tenant("globex"), h.tenant("initech")
	for _, x := range []*tenant{acme, globex, initech} {
		x.serve("iam", echo(x.slug), "/")
	}
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	h.send(h.change(nil, globex))
	p.until("globex", "/", http.StatusOK, "globex")
	h.send(h.change([]*tenant{acme}, initech))
	p.until("initech", "/", http.StatusOK, "initech")
	p.until("acme", "/", http.StatusNotFound, "")
	if n := h.registry.wholes(); n != 1 {
		t.Errorf("the snapshot was asked for whole %d times, want once", n)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	h.registry.stop()
	file := h.snapshotFile + ".changes"
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	// A write that was cut off, and one that somebody else changed: what came before serves.
	for name, c := range map[string]struct {
		text          []byte
		acme, initech int
	}{
		"whole":           {good, http.StatusNotFound, http.StatusOK},
		"cut off":         {good[:len(good)-1], http.StatusOK, http.StatusNotFound},
		"other":           {append(append([]byte{}, good[:len(good)-1]...), good[len(good)-1]^1), http.StatusOK, http.StatusNotFound},
		"with more after": {append(append([]byte{}, good...), 0xff, 0xff, 0x01), http.StatusNotFound, http.StatusOK},
	} {
		write(t, file, c.text)
		q := h.start()
		q.until("globex", "/", http.StatusOK, "globex")
		q.until("acme", "/", c.acme, "")
		q.until("initech", "/", c.initech, "")
		if err := q.stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Attr("row", "F17 4")
}

// Attack rows C46 and C47, for changes: what does not fit changes nothing, and the snapshot is asked for whole.
func TestChangeThatDoesNotFitChangesNothing(t *testing.T) {
	h := newHarness(t)
	acme, globex, evil := h.tenant("acme"), h.tenant("globex"), h.tenant("evil")
	for _, x := range []*tenant{acme, globex, evil} {
		x.serve("iam", echo(x.slug), "/")
	}
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	other := newHarness(t)
	other.version = h.version
	cut := h.change(nil, evil)
	cut.Change = cut.GetChange()[:len(cut.GetChange())/2]
	h.version--
	replayed := h.change(nil, globex)
	h.send(replayed)
	p.until("globex", "/", http.StatusOK, "globex")
	foreign := other.change(nil, evil)
	for name, c := range map[string]*registryv1.SignedSnapshotChange{"another registry's": foreign, "gap": nil, "cut": cut, "nothing": {}, "replayed": replayed} {
		wholes := h.registry.wholes()
		if name == "gap" {
			h.version++
			c = h.change(nil, evil)
			h.version -= 2
		}
		h.send(c)
		// Whoever asks again gets this one.
		h.publish(acme, globex)
		if name != "replayed" {
			late := time.After(20 * time.Second)
			for tick := time.NewTicker(10 * time.Millisecond); h.registry.wholes() == wholes; {
				select {
				case <-tick.C:
				case <-late:
					t.Fatalf("%s: the snapshot was not asked for whole", name)
				}
			}
		}
		h.send(h.change([]*tenant{globex}))
		p.until("globex", "/", http.StatusNotFound, "")
		h.send(h.change(nil, globex))
		p.until("globex", "/", http.StatusOK, "globex")
		p.until("evil", "/", http.StatusNotFound, "")
		p.until("acme", "/", http.StatusOK, "acme")
	}
	t.Attr("row", "C46 1")
	t.Attr("row", "C47 4")
}

// Fault row F17, after a disk that was full for a while: the snapshot is asked for whole until it is on disk, and who starts without a registry begins
// with what was served last.
func TestWhatCouldNotBeWrittenIsAskedForAgain(t *testing.T) {
	h := newHarness(t)
	acme, globex, initech := h.tenant("acme"), h.tenant("globex"), h.tenant("initech")
	for _, x := range []*tenant{acme, globex, initech} {
		x.serve("iam", echo(x.slug), "/")
	}
	h.publish(acme)
	p := h.start()
	p.until("acme", "/", http.StatusOK, "acme")
	// A directory in a file's place is not written over.
	kept := []string{h.snapshotFile, h.snapshotFile + ".changes"}
	for _, file := range kept {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(file, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	wholes := h.registry.wholes()
	h.send(h.change(nil, globex))
	p.until("globex", "/", http.StatusOK, "globex")
	h.publish(acme, globex, initech) // whoever asks again gets this one
	late := time.After(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); h.registry.wholes() < wholes+3; {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the snapshot that can't be written was asked for whole %d times", h.registry.wholes()-wholes)
		}
	}
	for _, file := range kept {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if _, err := os.Stat(h.snapshotFile); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the snapshot was not written when it could be")
		}
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	h.registry.stop()
	h.start().until("initech", "/", http.StatusOK, "initech")
	t.Attr("row", "F17 1")
}

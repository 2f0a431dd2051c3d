package supervise

import (
	"cmp"
	"log/slog"
	"slices"

	"a3os.app/tools/fleet/internal/process"
)

// noteUnits writes down what is kept, for a daemon that is started after this one was killed. Of many who changed something at once, one
// writes it down for all.
func (d *Daemon) noteUnits() error {
	mine := d.unitChanges.Add(1)
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.unitsNoted >= mine || d.forgot {
		return nil
	}
	now := d.unitChanges.Load()
	d.mu.Lock()
	units := make([]Unit, 0, len(d.keepers)+len(d.waiting))
	for _, k := range d.keepers {
		units = append(units, k.unit)
	}
	for _, u := range d.waiting {
		units = append(units, u)
	}
	d.mu.Unlock()
	slices.SortFunc(units, func(a, b Unit) int { return cmp.Compare(a.Name, b.Name) })
	err := writeJSON(d.dir.unitsFile(), units)
	if err == nil {
		d.unitsNoted = now
	}
	return err
}

// forgetUnits has nothing kept any longer, as who stops the plane wants it. A drop that ends after it writes nothing again: whoever found units
// written down would start all of them.
func (d *Daemon) forgetUnits() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.forgot = true
	return remove(d.dir.unitsFile())
}

// noteProcesses writes down what runs.
func (d *Daemon) noteProcesses() {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	running := map[string]process.ID{}
	for name, k := range d.keepers {
		if id := k.id(); id.PID != 0 {
			running[name] = id
		}
	}
	d.mu.Unlock()
	if err := writeJSON(d.dir.processesFile(), running); err != nil {
		slog.Error("what runs can't be written down", "error", err)
	}
}

package image

import (
	"debug/elf"
	"fmt"
	"path/filepath"
)

// Nobody is whom a program runs as where nobody says otherwise: the traditional id of who owns nothing.
const Nobody = "65534:65534"

// architectures are those that a program can be for, by what its header says.
var architectures = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}

// Program is an image of one program that is linked statically and needs nothing beside it.
func Program(file string) (Spec, error) {
	at := "/" + filepath.Base(file)
	s := Spec{Files: map[string]string{at: file}, Entrypoint: []string{at}, User: Nobody}
	program, err := elf.Open(file)
	if err != nil {
		return s, fmt.Errorf("%s is no program of Linux: %w", file, err)
	}
	defer program.Close()
	var known bool
	if s.Architecture, known = architectures[program.Machine]; !known {
		return s, fmt.Errorf("%s is a program for %s, and images are for amd64 or arm64: build it with GOARCH of one of them", file, program.Machine)
	}
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return s, fmt.Errorf("%s needs a loader and libraries, which an image of it alone has not: build it with CGO_ENABLED=0", file)
		}
	}
	return s, nil
}

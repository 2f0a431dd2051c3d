package image

import "path/filepath"

// Nobody is whom a program runs as where nobody says otherwise: the traditional id of who owns nothing.
const Nobody = "65534:65534"

// Program is an image of one program that is linked statically and needs nothing beside it.
func Program(file string) Spec {
	at := "/" + filepath.Base(file)
	return Spec{Files: map[string]string{at: file}, Entrypoint: []string{at}, User: Nobody}
}

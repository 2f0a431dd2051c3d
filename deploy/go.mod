module a3os.app/deploy

go 1.26.0

# The names a user can type.
if study.config.name not in ("all", *study.targets):

    rule:
        name:
            study.config.name
        input:
            rules.all.input,
        localrule: True


for target, (description, files) in study.targets.items():

    rule:
        name:
            target
        input:
            files,
        localrule: True


rule scores:
    input:
        [paths(file) for file in bundle_files(study, "scores")],
    localrule: True


rule tables:
    input:
        [paths(f"tables/{table}.{kind}") for table in study.study.tables for kind in ("csv", "md", "html")],
    localrule: True


rule targets:
    log:
        paths("logs/targets.log"),
    localrule: True
    run:
        print(study.target_list())


rule downloads:
    log:
        paths("logs/downloads.log"),
    localrule: True
    run:
        print(study.download_list())
